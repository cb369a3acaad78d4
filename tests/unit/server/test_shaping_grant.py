"""What an exit gives of shaping."""

from __future__ import annotations

import pytest

from halftunnel_vpn.protocol.shaping_terms import ShapingMode, ShapingTerms
from halftunnel_vpn.server.shaping_grant import MANY, leg_policy, receipt_interval, shaping_plan
from halftunnel_vpn.session.clock_parameters import TICK
from halftunnel_vpn.session.leg_lottery import BatchedWeightedRandom


def zeros(count: int) -> bytes:
    return bytes(count)


@pytest.mark.parametrize("mode", ShapingMode)
def test_only_strong_has_a_downstream_clock_and_legs_are_drawn_where_that_is_asked_for(mode):
    terms = ShapingTerms(mode, True, 1_600_000, 0, 0)
    assert (shaping_plan(terms, zeros) is not None) == (mode is ShapingMode.STRONG)
    assert isinstance(leg_policy(terms, zeros), BatchedWeightedRandom) == (mode is not ShapingMode.OFF)
    assert leg_policy(terms._replace(spreads=False), zeros) is None
    assert leg_policy(None, zeros) is None and shaping_plan(None, zeros) is None


@pytest.mark.parametrize("mode", ShapingMode)
def test_the_receipts_of_a_shaped_client_ride_on_its_clock(mode):
    terms = ShapingTerms(mode, True, 0, 0, 0)
    assert receipt_interval(terms) == (0.0 if mode is ShapingMode.OFF else TICK)
    assert receipt_interval(None) == 0.0


def test_bounds_are_those_that_were_granted():
    plan = shaping_plan(ShapingTerms(ShapingMode.STRONG, True, 1_000_000, 50, 1 << 30), zeros)
    assert plan is not None
    assert plan.budget.overhead == 50 and plan.budget.budget == 1 << 30
    assert plan.parameters.rate == pytest.approx(800_000, rel=0.01)


def test_among_many_a_clock_ticks_half_as_often_at_the_same_rate():
    terms = ShapingTerms(ShapingMode.STRONG, True, 1_600_000, 0, 0)
    few, many = shaping_plan(terms, zeros, lambda: MANY - 1), shaping_plan(terms, zeros, lambda: MANY)
    assert few is not None and many is not None
    assert many.parameters.tick == 2 * few.parameters.tick
    assert many.parameters.rate == pytest.approx(few.parameters.rate, rel=0.01)


def test_the_exit_decides_how_long_its_bulk_waits():
    terms = ShapingTerms(ShapingMode.STRONG, True, 1_600_000, 0, 0)
    plan = shaping_plan(terms, zeros, delay=2.5)
    assert plan is not None and plan.parameters.bulk_after == 2.5
