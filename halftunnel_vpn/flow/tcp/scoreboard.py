"""The outstanding ranges that the peer has received, by its selective acknowledgements (RFC 2018).

Sequence numbers here are *unwrapped*: integers that never wrap around, so they can be compared and
subtracted directly.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Final

MAX_RANGES: Final = 1024
"""Separate ranges of one flow. When a peer reports more, ranges are joined."""

DUPLICATES: Final = 3
"""DupThresh of RFC 6675: this many ranges above a hole, or duplicate acknowledgements, show a loss."""


class Scoreboard:
    """Disjoint ranges ``(start, end)`` in ascending order, with a gap between any two; ``total`` bytes."""

    __slots__ = ("ranges", "total")

    def __init__(self) -> None:
        self.ranges: list[tuple[int, int]] = []
        self.total = 0

    def add(self, start: int, end: int) -> bool:
        """Note that the peer has ``start`` to ``end``; return whether this was new."""
        ranges = self.ranges
        low = bisect_left(ranges, start, key=_end)
        high = bisect_right(ranges, end, key=_start)
        touched = ranges[low:high]
        known = 0
        if touched:
            start = min(start, touched[0][0])
            end = max(end, touched[-1][1])
            known = sum(right - left for left, right in touched)
        elif len(ranges) >= MAX_RANGES:
            return False
        if end - start == known:
            return False
        ranges[low:high] = [(start, end)]
        self.total += end - start - known
        return True

    def advance(self, una: int) -> None:
        """Drop everything before ``una``: it is acknowledged cumulatively."""
        ranges = self.ranges
        while ranges and ranges[0][0] < una:
            start, end = ranges.pop(0)
            self.total -= end - start
            if end > una:
                ranges.insert(0, (una, end))
                self.total += end - una

    def clear(self) -> None:
        """Drop all ranges (the peer may renege: RFC 2018, 8)."""
        self.ranges.clear()
        self.total = 0

    def covered(self, start: int, end: int) -> int:
        """Return how many bytes from ``start`` to ``end`` the peer has."""
        return sum(
            min(right, end) - max(left, start) for left, right in self.ranges if left < end and right > start
        )

    def first_hole(self, start: int, end: int) -> tuple[int, int] | None:
        """Return the first range between ``start`` and ``end`` that the peer has not reported."""
        ranges = self.ranges
        at = bisect_right(ranges, start, key=_end)
        if at < len(ranges) and ranges[at][0] <= start:
            start = ranges[at][1]
            at += 1
        if at < len(ranges):
            end = min(end, ranges[at][0])
        return (start, end) if start < end else None

    def lost_below(self, mss: int) -> int:
        """Return the number below which all holes count as lost (``IsLost`` of RFC 6675, 4); 0 for none.

        Above them the peer has ``DUPLICATES`` ranges, or more than ``DUPLICATES - 1`` full segments.
        """
        count = held = 0
        for start, end in reversed(self.ranges):
            count += 1
            held += end - start
            if count >= DUPLICATES or held > (DUPLICATES - 1) * mss:
                return start
        return 0


def _start(held: tuple[int, int]) -> int:
    return held[0]


def _end(held: tuple[int, int]) -> int:
    return held[1]
