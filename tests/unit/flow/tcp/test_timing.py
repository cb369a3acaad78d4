"""The retransmission timeout and the deadline that uses it."""

from __future__ import annotations

from math import inf

import pytest

from halftunnel_vpn.flow.tcp.endpoint_config import TcpEndpointConfig
from halftunnel_vpn.flow.tcp.lazy_timer import Deadline
from halftunnel_vpn.flow.tcp.round_trip import RoundTrip
from halftunnel_vpn.timers import GRANULARITY, Wheel


def test_the_first_sample() -> None:
    trip = RoundTrip(TcpEndpointConfig())
    assert trip.timeout == 1.0
    trip.sample(0.1)
    assert trip.smoothed == 0.1
    assert trip.timeout == pytest.approx(0.1 + 4 * 0.05)


def test_later_samples_are_smoothed() -> None:
    trip = RoundTrip(TcpEndpointConfig())
    trip.sample(0.1)
    trip.sample(0.2)
    assert trip.smoothed == pytest.approx(0.1125)
    assert trip.timeout == pytest.approx(0.1125 + 4 * (0.75 * 0.05 + 0.25 * 0.1))
    for _ in range(200):
        trip.sample(0.3)
    assert trip.timeout == pytest.approx(0.3 + GRANULARITY, abs=1e-3)


def test_the_timeout_stays_within_its_bounds() -> None:
    trip = RoundTrip(TcpEndpointConfig(rto_min=0.25, rto_max=8.0))
    trip.sample(0.000_1)
    assert trip.timeout == 0.25
    trip.sample(100.0)
    assert trip.timeout == 8.0


def test_backing_off_doubles_up_to_the_maximum() -> None:
    trip = RoundTrip(TcpEndpointConfig(rto_max=5.0))
    timeouts = []
    for _ in range(4):
        trip.back_off(0.0)
        timeouts.append(trip.timeout)
    assert timeouts == [2.0, 4.0, 5.0, 5.0]


def test_only_a_quick_answer_ends_the_back_off() -> None:
    trip = RoundTrip(TcpEndpointConfig())
    trip.sample(0.05)
    trip.back_off(10.0)
    trip.back_off(11.0)
    trip.answered(11.2)  # perhaps of the first one
    assert trip.timeout == 0.8
    trip.answered(11.09)
    assert trip.timeout == 0.2


def test_one_round_trip_is_watched_until_something_is_repeated() -> None:
    trip = RoundTrip(TcpEndpointConfig())
    trip.watch(5000, 1.0)
    assert trip.watched == 5000
    trip.arrived(1.5)
    assert (trip.smoothed, trip.watched) == (0.5, inf)
    trip.watch(9000, 2.0)
    trip.forget()
    assert trip.watched == inf


class Clock:
    def __init__(self) -> None:
        self.wheel = Wheel()
        self.passed: list[float] = []
        self.deadline = Deadline(self.wheel, self.passed.append)


def test_a_deadline_passes_once() -> None:
    clock = Clock()
    clock.deadline.set(1.0)
    clock.wheel.run(0.9)
    assert clock.passed == []
    clock.wheel.run(1.01)
    clock.wheel.run(9.0)
    assert clock.passed == [1.01]


def test_a_deadline_that_is_put_off_leaves_the_timer_alone() -> None:
    clock = Clock()
    clock.deadline.set(1.0)
    clock.deadline.set(1.5)
    assert clock.wheel.next_deadline == pytest.approx(1.0)
    clock.wheel.run(1.0)
    assert clock.passed == []
    clock.wheel.run(1.5)
    assert clock.passed == [1.5]


def test_a_deadline_that_comes_nearer() -> None:
    clock = Clock()
    clock.deadline.set(60.0)
    clock.deadline.set(0.5)
    clock.wheel.run(0.5)
    assert clock.passed == [0.5]


def test_a_deadline_that_is_given_up() -> None:
    clock = Clock()
    clock.deadline.set(1.0)
    clock.deadline.set(inf)
    clock.wheel.run(5.0)
    clock.deadline.set(6.0)
    clock.deadline.cancel()
    assert clock.wheel.next_deadline is None
    assert clock.passed == []


def test_no_deadline_is_chased_for_ever_by_the_last_bit() -> None:
    for step in range(1, 5000):
        clock = Clock()
        at = step * 0.001
        clock.deadline.set(at / 2)
        clock.deadline.set(at)
        while (due := clock.wheel.next_deadline) is not None:
            clock.wheel.run(due)
        assert clock.passed == pytest.approx([at], abs=GRANULARITY + 1e-6)
