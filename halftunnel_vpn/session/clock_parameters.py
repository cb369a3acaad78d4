"""The clock of one direction as data: how large, how often and how long its records leave.

Each connection draws its own parameters from a seed, so that nobody can learn from one what all look like.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

UP_CELL: Final = 1400
"""Bytes of an upstream record: one TCP segment with the headers of WebSocket and TLS."""

DOWN_RATE: Final = 900_000
"""Bytes a second of the downstream clock, unless another rate is asked for."""

MIN_DOWN_RATE: Final = 100_000
"""The least rate that a client may ask for."""

MAX_CELL: Final = 60_000
"""Bytes of a record at most: it must fit a train, whatever rate is asked for."""

TICK: Final = 0.01
"""Seconds between two records: a multiple of the timer wheel's step."""

TRICKLE_CELL: Final = 1024
"""Bytes of a downstream record while nothing but a little waits, on streams that are open already."""

SPREAD: Final = 0.2
"""Part by which what a connection draws differs from the middle at most."""

HOLD: Final = 0.2
"""Seconds beyond a round trip for which a clock goes on behind the last data,"""

STOPS_HOLD: Final = 0.15
"""and where it stops at fixed times: the next of these adds as much again."""


class RampStep(NamedTuple):
    """Until ``until`` seconds after a start, ``records`` of them leave together every ``ticks`` ticks."""

    until: float
    ticks: float
    records: int


STEADY: Final = RampStep(math.inf, 1, 1)

UP_RAMP: Final = (RampStep(0.5, 0.5, 1),)
"""The upstream's pace behind a start: handshakes and requests of a page come then."""

RAMP: Final = (
    RampStep(0.25, 2, 1),
    RampStep(0.5, 0.5, 1),
    RampStep(1.0, 0.5, 2),
    RampStep(1.7, 1, 1),
    RampStep(60.0, 0.5, 1),
)
"""The downstream's pace behind a start; then it is steady.

Handshakes come first, and need little; most of a page comes behind them. An activity that is longer than a
page of the middle has a large page, or several. The time alone decides, whatever there is to send.
"""

FIRST_STOP: Final = 0.5
"""Seconds after its start at which a clock may stop first, where it stops at fixed times,"""

STOP_GROWTH: Final = 1.5
"""and the factor to each later time."""

MAX_STOP_GAP: Final = 20.0
"""Seconds between two such times at most; also those between two checks of the budget."""

SPLIT_DELAY: Final = 1.0
STRONG_DELAY: Final = 5.0
"""Seconds for which more must wait than fits the clock until it counts as a bulk transfer, by mode."""

SEED_LENGTH: Final = 3
"""Random bytes from which the parameters of one connection are drawn."""


class ClockParameters(NamedTuple):
    """One direction's clock. Bytes are record bytes, times seconds."""

    cell: int
    # The cell while only a little waits; the same as ``cell`` where there is no such phase.
    trickle: int
    tick: float = TICK
    # Seconds beyond a round trip for which it goes on behind the last data.
    hold: float = HOLD
    # Whether it stops at fixed times after its start only, and not as soon as nothing is active.
    stops: bool = False
    # Whether it goes on while the peer's clock does (exit).
    follows: bool = False
    # Seconds for which more must wait than fits the clock until it counts as a bulk transfer.
    bulk_after: float = STRONG_DELAY
    first_stop: float = FIRST_STOP
    stop_growth: float = STOP_GROWTH
    # The pace behind the start of a whole activity, in the order of time.
    ramp: tuple[RampStep, ...] = ()

    @property
    def rate(self) -> float:
        """Bytes a second, once the ramp is over."""
        return self.cell / self.tick

    @property
    def highest_rate(self) -> float:
        """Bytes a second at the steepest place of the ramp."""
        return self.rate * max(pace.records / pace.ticks for pace in (*self.ramp, STEADY))

    def pace_at(self, passed: float) -> RampStep:
        """Return the pace ``passed`` seconds after the start of a whole activity."""
        for pace in self.ramp:
            if passed < pace.until:
                return pace
        return STEADY

    def bytes_between(self, start: float, end: float) -> float:
        """Return the bytes of the records from ``start`` to ``end``, in seconds of a whole activity."""
        total, at = 0.0, start
        for pace in (*self.ramp, STEADY):
            if at < pace.until and at < end:
                passed = min(pace.until, end) - at
                total += self.rate * pace.records / pace.ticks * passed
                at += passed
        return total


def upstream_clock(seed: bytes, *, stops: bool, bulk_after: float) -> ClockParameters:
    """Return the client's clock; ``seed`` are SEED_LENGTH random bytes."""
    cell = int(UP_CELL * (1 - _draw(seed[0]) * SPREAD / 2))  # never longer than a segment
    return ClockParameters(
        cell=cell,
        trickle=cell,
        hold=STOPS_HOLD if stops else HOLD,
        stops=stops,
        bulk_after=bulk_after,
        ramp=UP_RAMP,
        first_stop=FIRST_STOP * _around(seed[1]),
        stop_growth=1 + (STOP_GROWTH - 1) * _around(seed[2]),
    )


def downstream_clock(seed: bytes, *, bulk_after: float, rate: int = 0, tick: float = TICK) -> ClockParameters:
    """Return the exit's clock for about ``rate`` bytes a second, 0: DOWN_RATE; ``seed`` as above."""
    cell = int(min(max(rate or DOWN_RATE, MIN_DOWN_RATE) * tick * _around(seed[0]), MAX_CELL))
    trickle = min(int(TRICKLE_CELL * _around(seed[1])), cell)
    return ClockParameters(
        cell=cell,
        trickle=trickle,
        tick=tick,
        hold=STOPS_HOLD,
        follows=True,
        bulk_after=bulk_after,
        ramp=RAMP,
    )


def _draw(byte: int) -> float:
    """Return a number in [0, 1]."""
    return byte / 255


def _around(byte: int) -> float:
    """Return a factor around 1."""
    return 1 - SPREAD + 2 * SPREAD * _draw(byte)
