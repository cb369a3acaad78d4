"""The bytes on their way to the host: some wait, some are under way.

Nothing is copied but crumbs: pieces are kept as they came from the stream, and cut by slicing views.
"""

from __future__ import annotations

from typing import Final

COALESCE_BELOW: Final = 4096
"""Pieces smaller than this are joined while they wait: thousands of tiny views would pin large buffers."""

MAX_FRAME_PARTS: Final = 512
"""Pieces in one frame; well below what one writev may take."""


class SendQueue:
    """First in, first out; bounded by the credit that the stream has, which comes back by :meth:`release`.

    ``waiting`` is how many bytes wait; ``frame_limit`` the most that one frame holds.
    """

    __slots__ = ("_flying", "_waiting", "frame_limit", "waiting")

    def __init__(self) -> None:
        # lists, and not deques: an empty deque has 760 bytes, and most flows are idle most of the time
        self._waiting: list[memoryview] = []
        self._flying: list[memoryview] = []
        self.waiting = 0
        self.frame_limit = 0

    def append(self, data: memoryview) -> None:
        """Put ``data`` at the end of what waits."""
        waiting = self._waiting
        length = len(data)
        self.waiting += length
        if waiting and length < COALESCE_BELOW and len(waiting[-1]) < COALESCE_BELOW:
            waiting[-1] = memoryview(b"".join((waiting[-1], data)))
        elif length:
            waiting.append(data)

    def fly(self, data: memoryview) -> None:
        """``data``, which fits a frame, is under way at once: nothing waits before it."""
        self._flying.append(data)

    def peek(self, count: int) -> memoryview:
        """The first ``count`` waiting bytes, or fewer; they go on waiting."""
        return self._waiting[0][:count]

    def launch(self, size: int) -> tuple[list[memoryview], int]:
        """The next frame: up to ``size`` of the waiting bytes, now under way, and how many they are.

        Fewer when a frame holds no more, or when only a piece would be torn that fits a frame of its own.
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
        """The first ``count`` bytes under way have arrived."""
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
        """Up to ``size`` bytes of what is under way, from ``offset`` on, for one frame; and how many."""
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
        """Let go of everything."""
        self._waiting.clear()
        self._flying.clear()
        self.waiting = 0
