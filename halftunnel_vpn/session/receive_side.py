"""The receiving half of a byte stream: order, and the credit that the peer is given."""

from __future__ import annotations

from typing import Final

from halftunnel_vpn.errors import FlowControlError
from halftunnel_vpn.protocol.records import MAX_TRAIN
from halftunnel_vpn.protocol.wire import PacketType
from halftunnel_vpn.session.memory_budget import KEEP_FOR_FIRST, KEEP_TO_GROW, Memory
from halftunnel_vpn.session.send_side import RING, SERIAL_HALF, SERIAL_MASK

ACK_BYTES: Final = 256 * 1024
"""Received bytes after which an acknowledgement leaves at once."""

ACK_PACKETS: Final = 64
"""Received packets after which an acknowledgement leaves at once."""

INITIAL_WINDOW: Final = 128 * 1024
"""Bytes a new stream may receive before its first credit, if the pool has them and no bound is smaller."""

MIN_WINDOW: Final = 16 * 1024
"""Bytes every stream may receive, however empty the pool is."""

MAX_WINDOW: Final = 16 * 1024 * 1024
"""Bytes one stream's window grows to by default."""

GROWTH_HORIZON: Final = 0.010
"""Seconds: a window that is half used up within this, or within two round trips, is too small and grows."""

FAST_GROWTH: Final = 4
"""Factor by which a small window grows; after a loss at most once in a round trip or two."""

FAST_GROWTH_BELOW: Final = 1024 * 1024
"""Bytes from which on a window doubles. bbr forgets a rate that is not used for ten round trips."""

KEPT_AS_IT_CAME: Final = MAX_TRAIN // 2
"""Bytes from which on a payload that waits is not copied: a smaller one would keep a whole train alive."""

WAITING_COST: Final = 256
"""Bytes of memory that a packet costs beside its payload while it waits for its turn."""

Arrival = tuple[PacketType, memoryview]


class WindowPool:
    """The bytes that all streams of a session together may grant beyond their minimum.

    A quarter of them is for the first window of new streams: stalled readers with grown windows must not
    leave all others with the minimum. Of the rest no window takes so much that less than its own size is
    left: credit cannot be taken back, and connections that were fast once may idle for hours. ``memory`` is
    what other sessions share with this one.
    """

    __slots__ = ("_reserve", "available", "max_window", "memory")

    def __init__(self, size: int, max_window: int = MAX_WINDOW, memory: Memory | None = None) -> None:
        self.available = size
        self.memory = memory
        self.max_window = max_window
        self._reserve = size // 4

    def take(self, wanted: int) -> int:
        """Return at most ``wanted`` bytes; 0 if the pool is empty."""
        granted = min(wanted, self.available)
        if self.memory is not None:
            granted = min(granted, self.memory.spare(KEEP_FOR_FIRST))
            self.memory.take(granted)
        self.available -= granted
        return granted

    def take_to_grow(self, wanted: int, size: int) -> int:
        """At most ``wanted`` bytes for a window of ``size`` that grows; 0 when less than that is left."""
        wanted = min(wanted, (self.available - self._reserve - size) // 2)
        if self.memory is not None:
            wanted = min(wanted, self.memory.spare(KEEP_TO_GROW))
        return self.take(max(wanted, 0))

    def give_back(self, count: int) -> None:
        """Return what :meth:`take` gave."""
        self.available += count
        if self.memory is not None:
            self.memory.give_back(count)


class ReceiveWindow:
    """Credit in payload bytes: grows with the bandwidth-delay product, out of the session's pool."""

    __slots__ = (
        "_borrowed",
        "_epoch_consumed",
        "_epoch_started",
        "_is_over",
        "_pool",
        "consumed",
        "granted",
        "size",
    )

    def __init__(self, pool: WindowPool) -> None:
        self._pool = pool
        self._borrowed = pool.take(min(INITIAL_WINDOW, pool.max_window) - MIN_WINDOW)
        self.size = MIN_WINDOW + self._borrowed
        self.granted = self.size
        self.consumed = 0
        self._is_over = False
        self._epoch_consumed = 0
        self._epoch_started = 0.0

    def consume(self, count: int, round_trip: float, now: float) -> bool:
        """Count ``count`` consumed bytes; return whether credit should be sent. Updates ``granted``."""
        self.consumed += count
        if self._is_over:
            self.release(max(0, self._borrowed - count))
            return False
        in_epoch = self.consumed - self._epoch_consumed
        if in_epoch * 2 >= self.size:
            if now - self._epoch_started < max(2 * round_trip, GROWTH_HORIZON):
                self._grow()
            self._epoch_consumed = self.consumed
            self._epoch_started = now
        limit = self.consumed + self.size
        if (limit - self.granted) * 4 >= self.size:
            self.granted = limit
            return True
        return False

    def release(self, unread: int = 0) -> None:
        """Give the pool back what this window took, except ``unread`` bytes that the user still holds."""
        self._is_over = True
        kept = min(unread, self._borrowed)
        self._pool.give_back(self._borrowed - kept)
        self._borrowed = kept

    def _grow(self) -> None:
        wanted = (FAST_GROWTH - 1) * self.size if self.size < FAST_GROWTH_BELOW else self.size
        more = self._pool.take_to_grow(min(wanted, self._pool.max_window - self.size), self.size)
        self._borrowed += more
        self.size += more


class ReceiveSide:
    """Puts packets in order.

    ``expected`` is the next sequence number, a plain integer; ``waiting`` counts packets that came before
    their turn.
    """

    __slots__ = (
        "_memory",
        "_ring",
        "_waiting_bytes",
        "bytes_unacknowledged",
        "expected",
        "packets_unacknowledged",
        "received",
        "stream_id",
        "waiting",
        "window",
    )

    def __init__(self, pool: WindowPool, stream_id: int) -> None:
        self.stream_id = stream_id
        self.expected = 0
        self.received = 0
        self.window = ReceiveWindow(pool)
        self.packets_unacknowledged = self.bytes_unacknowledged = 0
        self._memory = pool.memory
        self._ring: list[Arrival | None] | None = None
        self.waiting = 0
        self._waiting_bytes = 0

    def accept(self, type_: PacketType, wire_number: int, payload: memoryview) -> bool:
        """Take a packet; True when it is the next one, False when it was kept for later or seen before.

        Raises FlowControlError for data beyond the window, in bytes or in packets, and for what would have to
        wait when memory is full.
        """
        offset = (wire_number - self.expected) & SERIAL_MASK
        length = len(payload) if type_ is PacketType.DATA else 0
        if offset == 0:
            if self.received + self._waiting_bytes + length > self.window.granted:
                raise FlowControlError("beyond-credit")
            self.received += length
            self.expected += 1
            self.packets_unacknowledged += 1
            return True
        if offset >= SERIAL_HALF:
            return False
        if offset >= RING:
            raise FlowControlError("beyond-ring")
        if self._ring is None:
            self._ring = [None] * RING
        slot = (self.expected + offset) % RING
        if self._ring[slot] is None:
            length = len(payload)  # of any type: it is kept
            if self.received + self._waiting_bytes + length > self.window.granted:
                raise FlowControlError("beyond-credit")
            if self._memory is not None:
                if self._memory.is_full:
                    raise FlowControlError("reorder-memory-full")
                self._memory.take(WAITING_COST)
            if length < KEPT_AS_IT_CAME:
                payload = memoryview(bytes(payload))
            self._ring[slot] = (type_, payload)
            self.waiting += 1
            self._waiting_bytes += length
        return False

    def next_waiting(self) -> Arrival | None:
        """Return the next packet that had come too early, if its turn has come."""
        if not self.waiting or self._ring is None:
            return None
        slot = self.expected % RING
        arrival = self._ring[slot]
        if arrival is None:
            return None
        self._ring[slot] = None
        self.waiting -= 1
        self.expected += 1
        self.packets_unacknowledged += 1
        length = len(arrival[1])
        self._waiting_bytes -= length
        if arrival[0] is PacketType.DATA:
            self.received += length
        if self._memory is not None:
            self._memory.give_back(WAITING_COST)
        if not self.waiting:
            self._ring = None
        return arrival

    def release(self, unread: int = 0) -> None:
        """Release what waits, and the window except ``unread`` bytes that the user still holds."""
        if self._memory is not None:
            self._memory.give_back(WAITING_COST * self.waiting)
        self._ring = None
        self.waiting = self._waiting_bytes = 0
        self.window.release(unread)
