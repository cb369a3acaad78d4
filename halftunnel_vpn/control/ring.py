"""The latest entries of a log, numbered, for readers that poll for more (long poll)."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")

MAX_WAIT = 20.0
"""The longest time in seconds that one reader may wait for a new entry."""


class Ring(Generic[T]):
    """At most ``size`` entries with serial numbers from 1. Old ones are discarded. For one event loop."""

    __slots__ = ("_changed", "_entries", "_last")

    def __init__(self, size: int) -> None:
        self._entries: deque[tuple[int, T]] = deque(maxlen=size)
        self._last = 0
        self._changed = asyncio.Event()

    @property
    def last_serial(self) -> int:
        """The serial number of the newest entry; 0 if there is none."""
        return self._last

    def append(self, entry: T) -> int:
        """Add an entry and wake all waiting readers; return its serial number."""
        self._last += 1
        self._entries.append((self._last, entry))
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        return self._last

    def since(self, serial: int) -> list[tuple[int, T]]:
        """Return entries after ``serial``, oldest first; all, if ``serial`` is of an earlier process."""
        if serial > self._last:
            serial = 0
        return [entry for entry in self._entries if entry[0] > serial]

    async def read(self, serial: int, wait: float) -> list[tuple[int, T]]:
        """Like :meth:`since`, but wait up to ``wait`` seconds (at most MAX_WAIT) for the first entry."""
        found = self.since(serial)
        if not found and wait > 0:
            changed = self._changed
            try:
                async with asyncio.timeout(min(wait, MAX_WAIT)):
                    await changed.wait()
            except TimeoutError:
                return []
            found = self.since(serial)
        return found
