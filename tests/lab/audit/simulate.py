"""Defences that only exist on paper, over recorded loads: for sweeps of their parameters.

The recorded traffic does not react: a request that is late does not make its answer late. So page load times
are lower bounds, and accuracies are estimates. Figures of the real tunnel never come from here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from halftunnel_vpn.errors import UsageError
from lab.audit.traces import Trace

_CLOCK = re.compile(r"(\d+)@(\d+(?:\.\d+)?)(?:\+(\d+))?")


class Clock(NamedTuple):
    """One cell of ``size`` bytes each ``tick`` seconds, until ``hold`` seconds after the last real byte."""

    size: int
    tick: float
    hold: float


def parse(text: str) -> tuple[Clock | None, Clock | None]:
    """Return the clocks of both directions; an empty side has none. Raises UsageError."""
    sides = text.split("/")
    if len(sides) > 2:
        raise UsageError(f"{text} is no defence: write UP/DOWN, each as BYTES@MS+HOLD_MS")
    clocks: list[Clock | None] = []
    for side in (*sides, ""):
        match = _CLOCK.fullmatch(side)
        if side and match is None:
            raise UsageError(f"{side} is no clock: write BYTES@MS+HOLD_MS, as in 1400@10+300")
        clocks.append(
            Clock(int(match[1]), float(match[2]) / 1000, float(match[3] or 300) / 1000) if match else None
        )
    return clocks[0], clocks[1]


def defend(trace: Trace, up: Clock | None, down: Clock | None) -> Trace:
    """Return the load as it would look on the paths."""
    packets: list[tuple[int, int, int]] = []
    for sign, clock in ((1, up), (-1, down)):
        own = [packet for packet in trace.packets if packet[1] * sign > 0]
        if clock is None or not own:
            packets += own
            continue
        # the direction's own path carries nearly all of it; the rest is keepalives on the other one
        legs = [leg for _, _, leg in own]
        leg = max(set(legs), key=legs.count)
        packets += [packet for packet in own if packet[2] != leg]
        packets += _clocked([packet for packet in own if packet[2] == leg], sign, leg, clock)
    return replace(trace, packets=sorted(packets))


def _clocked(
    packets: Sequence[tuple[int, int, int]], sign: int, leg: int, clock: Clock
) -> list[tuple[int, int, int]]:
    found = []
    waiting, place, now = 0, 0, packets[0][0] / 1e6
    last = now
    while place < len(packets) or waiting > 0 or now < last + clock.hold:
        while place < len(packets) and packets[place][0] / 1e6 <= now:
            waiting += abs(packets[place][1])
            place += 1
        if waiting > 0 or place < len(packets):
            last = now
        found.append((int(now * 1e6), sign * clock.size, leg))
        waiting = max(0, waiting - clock.size)
        now += clock.tick
    return found
