"""Defences that only exist on paper, over recorded loads: for sweeps of their parameters.

What is late makes later what depends on it: a packet follows what was received a round trip before it, and so
a load takes longer. That is an estimate. Figures of the real tunnel never come from here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from halftunnel_vpn.errors import UsageError
from lab.audit.traces import Trace

ROUND_TRIP: Final = 0.05
"""Seconds of the lab's paths, both ways together."""

_CLOCK = re.compile(r"(\d+)@(\d+(?:\.\d+)?)((?:x\d+(?:\.\d+)?<\d+)*)(?:\+(\d+))?(?:~(\d+)x(\d+\.\d+))?")
_PACE = re.compile(r"x(\d+(?:\.\d+)?)<(\d+)")


class Clock(NamedTuple):
    """One cell of ``size`` bytes each ``tick`` seconds, until ``hold`` seconds after the last real byte.

    ``ramp`` holds (seconds since the start, factor of the pace until then). With ``first_stop`` seconds, the
    clock stops then or at a time that is longer by ``growth``, and so on.
    """

    size: int
    tick: float
    hold: float
    ramp: tuple[tuple[float, float], ...] = ()
    first_stop: float = 0.0
    growth: float = 1.0

    def next_slot(self, passed: float) -> float:
        """Return the time of the slot after the one at ``passed``, both in seconds since the start."""
        pace = next((factor for until, factor in self.ramp if passed < until - 1e-9), 1.0)
        return passed + self.tick / pace

    def stop(self, passed: float) -> float:
        """Return when it stops, if it is held until ``passed``."""
        if not self.first_stop:
            return passed
        at = self.first_stop
        while at < passed:
            at *= self.growth
        return at


def parse(text: str) -> tuple[Clock | None, Clock | None]:
    """Return the clocks of both directions; an empty side has none. Raises UsageError."""
    sides = text.split("/")
    if len(sides) > 2:
        raise UsageError(f"{text} is no defence: write UP/DOWN, each as BYTES@MS+HOLD_MS")
    clocks: list[Clock | None] = []
    for side in (*sides, ""):
        match = _CLOCK.fullmatch(side)
        if side and match is None:
            raise UsageError(
                f"{side} is not a clock: write BYTES@MS+HOLD_MS, as in 1400@10+300; with a pace until a time "
                "and with stops, 11000@10x0.5<250x2<700+150~500x1.35"
            )
        clocks.append(_clock_of(match) if match else None)
    return clocks[0], clocks[1]


def _clock_of(match: re.Match[str]) -> Clock:
    size, tick, ramp, hold, first_stop, growth = match.groups()
    return Clock(
        int(size),
        float(tick) / 1000,
        float(hold or 300) / 1000,
        tuple((int(until) / 1000, float(factor)) for factor, until in _PACE.findall(ramp)),
        int(first_stop or 0) / 1000,
        float(growth or 1),
    )


class _Path:
    """One direction behind ``clock``; ``leg`` is the one that carries nearly all of it."""

    def __init__(self, clock: Clock, packets: Sequence[tuple[int, int, int]], sign: int) -> None:
        legs = [leg for _, size, leg in packets if size * sign > 0]
        self.leg = max(set(legs), key=legs.count)
        self.cells: list[tuple[int, int, int]] = []
        self._clock = clock
        self._cell = sign * clock.size
        self._start: float | None = None
        # The last slot, in seconds since the start, and what of its cell is free.
        self._slot = 0.0
        self._room = 0
        self._last = 0.0

    def send(self, size: int, at: float) -> float:
        """Send ``size`` bytes that are there at ``at`` seconds; return when the last of them leaves."""
        if self._start is None:
            self._start = at
            self._emit()
        while self._start + self._slot < at - 1e-9:
            self._advance()
        while size > self._room:
            size -= self._room
            self._advance()
        self._room -= size
        self._last = self._slot
        return self._start + self._slot

    def finish(self, last: float) -> None:
        """Go on until the stop behind the last byte of both directions, at ``last`` seconds."""
        if self._start is None:
            return
        stop = self._clock.stop(max(self._last, last - self._start) + self._clock.hold)
        while self._clock.next_slot(self._slot) < stop:
            self._advance()

    def _advance(self) -> None:
        self._slot = self._clock.next_slot(self._slot)
        self._emit()

    def _emit(self) -> None:
        assert self._start is not None
        self._room = self._clock.size
        self.cells.append((round((self._start + self._slot) * 1e6), self._cell, self.leg))


def defend(trace: Trace, up: Clock | None, down: Clock | None) -> Trace:
    """Return the load as it would look on the paths."""
    paths = {
        sign: _Path(clock, trace.packets, sign)
        for sign, clock in ((1, up), (-1, down))
        if clock is not None and any(size * sign > 0 for _, size, _ in trace.packets)
    }
    packets: list[tuple[int, int, int]] = []
    # When each packet was sent, and how much later than in the record, in seconds.
    sent: list[tuple[float, float]] = []
    known, late = 0, 0.0
    for micros, size, leg in sorted(trace.packets):
        at = micros / 1e6
        while known < len(sent) and sent[known][0] <= at - ROUND_TRIP:
            late = max(late, sent[known][1])
            known += 1
        path = paths.get(1 if size > 0 else -1)
        if path is not None and leg == path.leg:
            sent.append((at, path.send(abs(size), at + late) - at))
        else:  # not on a clock, or a keepalive on the other direction's leg
            packets.append((round((at + late) * 1e6), size, leg))
            sent.append((at, late))
    last = max((at + delay for at, delay in sent), default=0.0)
    for path in paths.values():
        path.finish(last)
        packets += path.cells
    delay = sent[-1][1] if sent else 0.0
    return replace(trace, packets=sorted(packets), seconds=trace.seconds + delay)
