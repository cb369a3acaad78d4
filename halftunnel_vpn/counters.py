"""Plain integers that the data path increments.

A collector in ``observe`` turns them into metrics at each request.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable
from typing import Final

LATENCY_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the buckets of a :class:`Histogram`, in seconds; one without a bound follows."""


class Histogram:
    """How often a time fell into each bucket, and the sum of all times in seconds."""

    __slots__ = ("buckets", "sum")

    def __init__(self) -> None:
        self.buckets = [0] * (len(LATENCY_BOUNDS) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one time."""
        self.buckets[bisect_left(LATENCY_BOUNDS, seconds)] += 1
        self.sum += seconds


class Counters:
    """Counts of one component, by label.

    ``dropped`` maps a reason (``ip-bad-checksum``) to the number of drops for it. ``counted`` maps the name
    of an event (``handshakes-accepted``) or of a quantity (``bytes-sent``) to its total. ``observed`` maps
    the name of a time (``latency-tcp``) to its histogram.
    """

    __slots__ = ("_refreshers", "counted", "dropped", "observed")

    def __init__(self) -> None:
        self._refreshers: list[Callable[[], None]] = []
        self.dropped: defaultdict[str, int] = defaultdict(int)
        self.counted: defaultdict[str, int] = defaultdict(int)
        self.observed: defaultdict[str, Histogram] = defaultdict(Histogram)

    def drop(self, reason: str, count: int = 1) -> None:
        """Count ``count`` drops for ``reason``."""
        self.dropped[reason] += count

    def count(self, name: str, count: int = 1) -> None:
        """Add ``count`` to the total ``name``."""
        self.counted[name] += count

    def observe(self, name: str, seconds: float) -> None:
        """Count one time under ``name``."""
        self.observed[name].observe(seconds)

    def add_refresher(self, refresh: Callable[[], None]) -> None:
        """Call ``refresh`` before the counts are read; it adds what its owner has counted by itself."""
        self._refreshers.append(refresh)

    def remove_refresher(self, refresh: Callable[[], None]) -> None:
        """Stop calling ``refresh``."""
        self._refreshers.remove(refresh)

    def refresh(self) -> None:
        """Bring the counts up to date; call it before reading them."""
        for refresh in self._refreshers:
            refresh()
