"""The circuit of a domain: what each event does in each state, and who may try when."""

from __future__ import annotations

import pytest

from halftunnel_vpn.client.legs.circuit_breaker import Breaker, Circuit
from halftunnel_vpn.errors import IllegalTransition


@pytest.fixture
def breaker() -> Breaker:
    return Breaker(lambda: 1.0)


def test_a_domain_that_works_is_tried_by_any_number_of_legs(breaker):
    for _ in range(3):
        assert breaker.is_ready(0.0)
        breaker.tried()
    breaker.succeeded()
    assert breaker.circuit is Circuit.CLOSED


def test_pauses_grow_from_one_second_to_a_minute(breaker):
    now, pauses = 100.0, []
    for _ in range(13):
        breaker.tried()
        breaker.failed(now)
        assert breaker.circuit is Circuit.OPEN
        pauses.append(breaker.ready_at - now)
        assert not breaker.is_ready(breaker.ready_at - 0.01)
        now = breaker.ready_at
        assert breaker.is_ready(now)
    assert pauses[:3] == pytest.approx([1, 1.5, 2.25]) and pauses[11:] == pytest.approx([60, 60])


def test_after_the_pause_one_leg_alone_tries(breaker):
    breaker.failed(0.0)
    breaker.tried()
    assert breaker.circuit is Circuit.HALF_OPEN
    assert not breaker.is_ready(1e9)
    with pytest.raises(IllegalTransition, match="half-open cannot be tried"):
        breaker.tried()
    breaker.succeeded()
    assert breaker.circuit is Circuit.CLOSED


def test_success_begins_the_pauses_anew(breaker):
    for _ in range(5):
        breaker.failed(0.0)
        breaker.tried()
    breaker.succeeded()
    breaker.failed(0.0)
    assert breaker.ready_at == 1.0


def test_attempts_that_began_together_and_fail_together_count_once(breaker):
    for _ in range(4):
        breaker.tried()
    for _ in range(4):
        breaker.failed(10.0)
    assert breaker.ready_at == 11.0


def test_an_attempt_without_a_result_leaves_the_next_one_free(breaker):
    breaker.failed(0.0)
    breaker.tried()
    breaker.abandoned(5.0)
    assert breaker.circuit is Circuit.OPEN and breaker.is_ready(5.0)


def test_another_network_forgives_everything_and_tells():
    told = []
    breaker = Breaker(lambda: 1.0, lambda: told.append(breaker.circuit))
    for _ in range(6):
        breaker.failed(0.0)
        breaker.tried()
    breaker.failed(0.0)
    told.clear()
    breaker.forgive()
    assert told == [Circuit.OPEN] and breaker.is_ready(0.0)
    breaker.tried()
    breaker.failed(0.0)
    assert breaker.ready_at == 1.0
