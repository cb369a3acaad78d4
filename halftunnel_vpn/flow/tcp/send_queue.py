"""The bytes for the host: those that wait to be sent and those in flight.

Only very small pieces are copied. Other pieces are kept as the stream gave them, and cut by slicing views.
"""

from __future__ import annotations

from typing import Final

COALESCE_BELOW: Final = 4096
"""Pieces smaller than this are joined while they wait: thousands of tiny views would pin large buffers."""

MAX_FRAME_PARTS: Final = 512
"""Pieces in one frame; well below the limit of writev."""


class SendQueue:
    """First in, first out. The credit of the stream bounds it; :meth:`release` frees credit.

    ``waiting`` is the number of waiting bytes. ``frame_limit`` is the most bytes in one frame.
    """

    __slots__ = ("_flying", "_waiting", "frame_limit", "waiting")

    def __init__(self) -> None:
        # Lists and not deques: an empty deque takes 760 bytes, and most flows are idle most of the time.
        self._waiting: list[memoryview] = []
        self._flying: list[memoryview] = []
        self.waiting = 0
        self.frame_limit = 0

    def append(self, data: memoryview) -> None:
        """Add ``data`` to the end of the waiting bytes."""
        waiting = self._waiting
        length = len(data)
        self.waiting += length
        if waiting and length < COALESCE_BELOW and len(waiting[-1]) < COALESCE_BELOW:
            waiting[-1] = memoryview(b"".join((waiting[-1], data)))
        elif length:
            waiting.append(data)

    def append_in_flight(self, data: memoryview) -> None:
        """Add ``data``, which fits a frame, to the bytes in flight. Nothing may be waiting."""
        self._flying.append(data)

    def peek(self, count: int) -> memoryview:
        """Return up to ``count`` of the waiting bytes. They stay waiting."""
        return self._waiting[0][:count]

    def launch(self, size: int) -> tuple[list[memoryview], int]:
        """Take the next frame: move up to ``size`` waiting bytes into flight; return them and their number.

        Fewer bytes are taken when the frame is full, or to avoid cutting a piece that fits into a frame.
        """
        waiting = self._waiting
        if size > self.frame_limit:
            size = self.frame_limit
        head = waiting[0]
        if len(head) == size:
            del waiting[0]
            self._flying.append(head)
            self.waiting -= size
            return [head], size
        parts: list[memoryview] = []
        left = size
        while left and len(parts) < MAX_FRAME_PARTS:
            head = waiting[0]
            length = len(head)
            if length > left:
                if left <= size // 2 and length <= self.frame_limit:
                    break
                parts.append(head[:left])
                waiting[0] = head[left:]
                left = 0
            else:
                parts.append(head)
                del waiting[0]
                left -= length
        self._flying += parts
        size -= left
        self.waiting -= size
        return parts, size

    def release(self, count: int) -> None:
        """Drop the first ``count`` bytes in flight: they have arrived."""
        flying = self._flying
        while count:
            head = flying[0]
            length = len(head)
            if length > count:
                flying[0] = head[count:]
                return
            del flying[0]
            count -= length

    def again(self, offset: int, size: int) -> tuple[list[memoryview], int]:
        """Return up to ``size`` bytes in flight from ``offset`` on, for one frame, and their number."""
        parts: list[memoryview] = []
        left = size = min(size, self.frame_limit)
        for piece in self._flying:
            if not left or len(parts) == MAX_FRAME_PARTS:
                break
            if offset >= len(piece):
                offset -= len(piece)
                continue
            part = piece[offset : offset + left]
            parts.append(part)
            left -= len(part)
            offset = 0
        return parts, size - left

    def clear(self) -> None:
        """Drop everything."""
        self._waiting.clear()
        self._flying.clear()
        self.waiting = 0
