"""The wheel on which all deadlines are."""

from __future__ import annotations

from halftunnel_vpn.timers import Wheel


def test_arm_and_cancel_beside_ten_thousand_others(benchmark):
    wheel = Wheel()
    others = [wheel.timer(lambda now: None) for _ in range(10_000)]
    for number, other in enumerate(others):
        other.arm(100 + number * 0.01)
    timer = wheel.timer(lambda now: None)

    def use():
        timer.arm(101.0)
        timer.cancel()

    benchmark(use)
