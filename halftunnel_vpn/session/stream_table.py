"""The streams of one session by number, and the memory that they are counted with."""

from __future__ import annotations

from halftunnel_vpn.session.memory_budget import Memory
from halftunnel_vpn.session.stream import Stream
from halftunnel_vpn.session.stream_ids import StreamNumbers


class StreamTable:
    """``streams`` by number; ``refused`` are those beyond a bound whose RESET is not acknowledged (exit)."""

    __slots__ = ("_memory", "numbers", "refused", "streams")

    def __init__(self, memory: Memory | None) -> None:
        self.streams: dict[int, Stream] = {}
        self.numbers = StreamNumbers()
        self.refused: set[int] = set()
        self._memory = memory

    def add(self, stream: Stream) -> None:
        """Register ``stream``."""
        self.streams[stream.stream_id] = stream
        stream.is_registered = True
        if self._memory is not None:
            self._memory.take(stream.cost)

    def discard(self, stream: Stream) -> bool:
        """Unregister ``stream``; return False if it was not registered."""
        if self.streams.pop(stream.stream_id, None) is None:
            return False
        stream.is_registered = False
        self.refused.discard(stream.stream_id)
        if self._memory is not None:
            self._memory.give_back(stream.cost)
        return True

    def settle(self, stream: Stream) -> None:
        """Unregister ``stream`` and release what it holds: it is over."""
        if self.discard(stream):
            stream.settle()

    def served(self, stream: Stream) -> None:
        """Settle ``stream`` if it is over: the scheduler has nothing more to send for it."""
        if stream.is_over:
            self.settle(stream)
