"""Memory that many streams share: one bound for each client, and one above it for all clients of an exit."""

from __future__ import annotations

STREAM_COST = 2048
"""Bytes that an idle stream is counted with."""

MIN_SEND = 16 * 1024
"""Bytes that every stream may keep until they are acknowledged, however little memory is left."""

KEEP_TO_GROW = 2
"""A window grows while more than 1/N is free: the rest is for new windows."""

KEEP_FOR_FIRST = 4
"""A new stream gets its full first window while more than 1/N is free."""

KEEP_TO_SEND = 8
"""A stream keeps more than MIN_SEND while more than 1/N is free."""


class Memory:
    """Bytes in use under a bound: windows that were granted, data that is kept, and the streams themselves.

    ``parent`` bounds several of them together, and has no parent. Nothing waits for memory here: callers
    get less, but enough to go on; new streams are refused when nothing is free.
    """

    __slots__ = ("_parent", "limit", "used")

    def __init__(self, limit: int, parent: Memory | None = None) -> None:
        self.limit = limit
        self.used = 0
        self._parent = parent

    @property
    def is_full(self) -> bool:
        """Whether a bound is reached, this one or the one above."""
        parent = self._parent
        return self.used >= self.limit or (parent is not None and parent.used >= parent.limit)

    def spare(self, keep: int) -> int:
        """Return the bytes that are free beyond 1/``keep`` of each bound; 0 when there are none."""
        spare = self.limit - self.limit // keep - self.used
        parent = self._parent
        if parent is not None:
            above = parent.limit - parent.limit // keep - parent.used
            if above < spare:
                spare = above
        return spare if spare > 0 else 0

    def take(self, count: int) -> None:
        """Count ``count`` more bytes; the caller has checked that they are free."""
        self.used += count
        if self._parent is not None:
            self._parent.used += count

    def give_back(self, count: int) -> None:
        """Return what :meth:`take` took."""
        self.used -= count
        if self._parent is not None:
            self._parent.used -= count
