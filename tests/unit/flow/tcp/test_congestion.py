"""How much may be under way, by policy."""

from __future__ import annotations

import pytest

from halftunnel_vpn.flow.tcp.congestion import FULL_FRAME, UNBOUNDED, NewReno, Unlimited


def test_for_the_host_itself_nothing_changes() -> None:
    unlimited = Unlimited()
    unlimited.started(1000)
    unlimited.acknowledged(1000, 1000)
    unlimited.lost(5000)
    unlimited.timed_out(5000, False)
    unlimited.idle()
    assert (unlimited.window, unlimited.burst) == (UNBOUNDED, FULL_FRAME)


@pytest.mark.parametrize(("mss", "window"), [(500, 5000), (1460, 14600), (4000, 14600), (8960, 17920)])
def test_the_initial_window(mss: int, window: int) -> None:
    reno = NewReno()
    reno.started(mss)
    assert (reno.window, reno.burst) == (window, mss)


def test_slow_start_doubles_per_round_trip_until_the_threshold() -> None:
    reno = NewReno()
    reno.started(1000)
    for _ in range(2):
        for _ in range(reno.window // 1000):
            reno.acknowledged(1000, reno.window)
    assert reno.window == 40_000
    reno.timed_out(40_000, False)
    assert reno.window == 1000
    while reno.window < 20_000:
        reno.acknowledged(3000, reno.window)
    assert reno.window == 20_000


def test_congestion_avoidance_adds_a_segment_per_round_trip() -> None:
    reno = NewReno()
    reno.started(1000)
    reno.lost(20_000)
    assert reno.window == 10_000
    for _ in range(9):
        reno.acknowledged(1000, 10_000)
    assert reno.window == 10_000
    reno.acknowledged(1000, 10_000)
    assert reno.window == 11_000


def test_a_window_that_is_not_used_does_not_grow() -> None:
    reno = NewReno()
    reno.started(1000)
    reno.acknowledged(1000, 4000)
    assert reno.window == 10_000


def test_the_window_never_falls_below_what_keeps_things_moving() -> None:
    reno = NewReno()
    reno.started(1000)
    reno.lost(1000)
    assert reno.window == 2000
    reno.timed_out(1000, False)
    assert reno.window == 1000


def test_a_second_timeout_for_the_same_data_keeps_the_threshold() -> None:
    reno = NewReno()
    reno.started(1000)
    reno.timed_out(20_000, False)
    reno.timed_out(1000, True)
    for _ in range(20):
        reno.acknowledged(1000, reno.window)
    assert reno.window == 11_000  # slow start up to 10 000, then one segment


def test_a_pause_forgets_what_was_learnt() -> None:
    reno = NewReno()
    reno.started(1000)
    for _ in range(50):
        reno.acknowledged(1000, reno.window)
    reno.idle()
    assert reno.window == 10_000
    reno.lost(10_000)
    reno.idle()
    assert reno.window == 5000
