"""Receipts: how many datagrams are under way on a leg, and how many may be.

Byte streams are bounded by credit, datagrams by what the leg has carried to its end. The receiver says how
many records have arrived on a leg; the sender counts the bytes of datagrams in those that have not. Without
this a flood of datagrams fills every buffer of the road, and whatever comes behind it waits for seconds.
"""

from __future__ import annotations

from collections import deque
from typing import Final

RECEIPT_BYTES: Final = 32 * 1024
"""Bytes of datagrams that arrive on a leg between two receipts; fewer are never missed."""

MIN_UNDER_WAY: Final = 192 * 1024
"""Bytes of datagrams that may always be under way on a leg, RECEIPT_BYTES that are not told of among them."""

MAX_UNDER_WAY: Final = 8 * 1024 * 1024
"""Bytes that may ever be."""

PRODUCTS: Final = 2
"""Bandwidth-delay products that may be under way beyond the minimum."""

MIN_SAMPLE: Final = 0.01
"""Seconds over which a rate is measured, at the least."""


class UnderWay:
    """Bytes of datagrams that one leg carries and that no receipt has told of, and the bound on them."""

    __slots__ = (
        "_last_rate",
        "_least_round_trip",
        "_rate",
        "_records",
        "_sample_began",
        "_sample_bytes",
        "bytes",
        "limit",
    )

    def __init__(self) -> None:
        self.bytes = 0
        self.limit = MIN_UNDER_WAY
        self._records: deque[tuple[int, int]] = deque()
        self._least_round_trip = float("inf")
        self._rate = self._last_rate = 0.0
        self._sample_began = 0.0
        self._sample_bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether no more may leave now."""
        return self.bytes >= self.limit

    def sent(self, record: int, count: int) -> None:
        """``count`` bytes of datagrams, already in ``bytes``, leave with record ``record`` of the leg."""
        self._records.append((record, count))

    def arrived(self, records: int, now: float, round_trip: float | None) -> None:
        """The peer has received so many records; ``round_trip`` is what the leg last measured, in seconds."""
        waiting = self._records
        before = self.bytes
        while waiting and waiting[0][0] <= records:
            self.bytes -= waiting.popleft()[1]
        self._sample_bytes += before - self.bytes
        if round_trip is not None and round_trip < self._least_round_trip:
            self._least_round_trip = round_trip
        self._measure(now)

    def _measure(self, now: float) -> None:
        round_trip = self._least_round_trip
        if round_trip == float("inf"):
            return
        took = now - self._sample_began
        if took < max(round_trip, MIN_SAMPLE):
            return
        self._last_rate, self._rate = self._rate, self._sample_bytes / took
        self._sample_began = now
        self._sample_bytes = 0
        product = max(self._rate, self._last_rate) * round_trip
        self.limit = min(MIN_UNDER_WAY + int(PRODUCTS * product), MAX_UNDER_WAY)
