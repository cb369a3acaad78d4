"""Each connection draws its own clock, within bounds."""

from __future__ import annotations

import pytest

from halftunnel_vpn.session.activity_clock import OUTCOMES, ActivityClock
from halftunnel_vpn.session.clock_parameters import (
    DOWN_RATE,
    FIRST_STOP,
    MAX_CELL,
    MAX_STOP_GAP,
    RAMP,
    SPREAD,
    STEADY,
    STOP_GROWTH,
    TICK,
    UP_CELL,
    UP_RAMP,
    downstream_clock,
    upstream_clock,
)
from halftunnel_vpn.timers import GRANULARITY

SEEDS = [bytes([a, b, c]) for a in (0, 100, 255) for b in (0, 255) for c in (0, 255)]


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_drawn_stays_near_the_middle(seed):
    up = upstream_clock(seed, stops=True, bulk_after=5.0)
    assert UP_CELL * (1 - SPREAD) <= up.cell <= UP_CELL, "one segment"
    down = downstream_clock(seed, bulk_after=5.0)
    assert DOWN_RATE * (1 - SPREAD) - 100 <= down.rate <= DOWN_RATE * (1 + SPREAD)
    assert down.trickle < down.cell
    for clock in (up, down):
        assert round(clock.tick / GRANULARITY) * GRANULARITY == pytest.approx(clock.tick)


def test_connections_differ():
    assert len({upstream_clock(seed, stops=True, bulk_after=5.0).cell for seed in SEEDS}) == 3
    assert len({downstream_clock(seed, bulk_after=5.0).cell for seed in SEEDS}) == 3


def test_no_rate_makes_a_record_that_fits_no_train():
    assert downstream_clock(b"\xff\xff\xff", bulk_after=5.0, rate=1 << 32).cell == MAX_CELL


def test_stops_grow_up_to_their_bound_and_sixteen_are_told_apart():
    clock = ActivityClock(upstream_clock(bytes([0, 128, 128]), stops=True, bulk_after=5.0))
    clock.begin(1000.0)
    stops = []
    while len(stops) < 40:
        stops.append(clock.next_check - 1000.0)
        clock.advance(clock.next_check)
    assert stops[0] == pytest.approx(0.5, rel=0.01)
    assert stops[3] / stops[2] == pytest.approx(1.5, rel=0.01)
    assert stops[-1] - stops[-2] == MAX_STOP_GAP
    clock.stop()
    assert clock.stopped_at[OUTCOMES - 1] == 1 and not clock.running


def test_an_activity_keeps_its_pace_until_the_next_one_is_due():
    parameters = downstream_clock(bytes(3), bulk_after=5.0)
    clock = ActivityClock(parameters)
    clock.begin(1000.0)
    for step in range(13_000):  # 65 s
        now = 1000.001 + step * GRANULARITY
        if now >= clock.pace_until:
            clock.set_pace(now)
        pace = parameters.pace_at(now - 1000.0)
        assert (clock.records, clock.steps * GRANULARITY) == (pace.records, pace.ticks * TICK)
    clock.is_whole = False
    clock.begin(2000.0)
    assert (clock.records, clock.steps * GRANULARITY) == (1, TICK), "a trickle has one pace"
    assert clock.highest_rate == parameters.trickle / TICK


def test_a_minute_has_as_many_stops_as_are_told_apart():
    stops = [FIRST_STOP * STOP_GROWTH**index for index in range(OUTCOMES + 1)]
    assert stops[OUTCOMES - 2] < 60.0 < stops[OUTCOMES]


def test_the_pace_depends_on_the_time_alone():
    clock = downstream_clock(bytes(3), bulk_after=5.0)
    paces = [clock.pace_at(passed)[1:] for passed in (0.0, 0.24, 0.26, 0.49, 0.51, 0.99, 1.01, 1.71, 100.0)]
    assert paces == [*[(2, 1)] * 2, *[(0.5, 1)] * 2, *[(0.5, 2)] * 2, (1, 1), (0.5, 1), (1, 1)]
    assert clock.highest_rate == pytest.approx(4 * clock.rate)
    parts = [clock.rate * seconds for seconds in (0.125, 0.5, 2.0, 0.7, 2.6)]
    assert clock.bytes_between(0.0, 3.0) == pytest.approx(sum(parts))
    assert clock.bytes_between(0.5, 0.6) == pytest.approx(clock.rate * 0.4)
    up = upstream_clock(bytes(3), stops=True, bulk_after=5.0)
    assert [up.pace_at(passed)[1:] for passed in (0.0, 0.49, 0.51)] == [(0.5, 1), (0.5, 1), STEADY[1:]]
    assert up.bytes_between(0.0, 1.0) == pytest.approx(up.rate * 1.5)


@pytest.mark.parametrize("ramp", [RAMP, UP_RAMP])
def test_the_records_of_a_ramp_leave_at_times_that_a_timer_has(ramp):
    for pace in ramp:
        steps = pace.ticks * TICK / GRANULARITY
        assert steps >= 1 and steps == pytest.approx(round(steps))
