"""The rate of a client: exact over time, in turn between relays, and lifted at once."""

from __future__ import annotations

import pytest

from halftunnel_vpn.timers import Wheel
from halftunnel_vpn.transport.relay.meter import SMALLEST_BURST, RateGate

PIECE = 65_000


class Clock:
    def __init__(self) -> None:
        self.now = 100.0
        self.wheel = Wheel(lambda deadline: None)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += 0.001
            self.wheel.run(self.now)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def relay(gate: RateGate, moved: list[int], number: int):
    """Move pieces whenever the gate allows it, as a relay with endless data does."""

    def go_on() -> None:
        while not gate.rate or gate.is_open():
            if not gate.rate:
                return
            gate.take(PIECE)
            moved[number] += PIECE
        gate.wait(go_on)

    return go_on


@pytest.mark.parametrize("rate", [64_000.0, 2.5e6, 125e6])
def test_the_rate_holds_over_ten_seconds_for_all_relays_together(clock, rate):
    gate = RateGate(clock.wheel, lambda: clock.now)
    gate.set_rate(rate)
    moved = [0, 0, 0]
    for number in range(3):
        relay(gate, moved, number)()
    clock.run(10.0)
    allowance = max(SMALLEST_BURST, rate * 0.02) + PIECE
    assert rate * 10 * 0.97 - PIECE <= sum(moved) <= rate * 10 + allowance


def test_relays_get_their_turns(clock):
    gate = RateGate(clock.wheel, lambda: clock.now)
    gate.set_rate(1e6)
    moved = [0, 0]
    for number in range(2):
        relay(gate, moved, number)()
    clock.run(10.0)
    assert max(moved) < 1.3 * min(moved)


def test_a_limit_that_is_lifted_lets_those_who_wait_go_on(clock):
    gate = RateGate(clock.wheel, lambda: clock.now)
    gate.set_rate(10_000.0)
    gate.take(10**9)
    called = []
    gate.wait(lambda: called.append(True))
    clock.run(1.0)
    assert not called
    gate.set_rate(0.0)
    clock.run(0.1)
    assert called


def test_a_relay_that_fails_does_not_keep_the_others_waiting(clock):
    gate = RateGate(clock.wheel, lambda: clock.now)
    gate.set_rate(1e6)
    gate.take(2 * SMALLEST_BURST)
    called = []

    def fail() -> None:
        raise ZeroDivisionError

    gate.wait(fail)
    gate.wait(lambda: called.append("next"))
    with pytest.raises(ZeroDivisionError):
        clock.run(1.0)
    clock.run(1.0)
    assert called == ["next"]
