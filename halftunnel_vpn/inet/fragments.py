"""Reassembly of IPv4 (RFC 791, 815) and IPv6 (RFC 8200, 4.5) fragments, within bounds.

Fragments that overlap condemn their datagram (RFC 5722); an exact repetition is harmless and ignored.
Nothing is raised for what the sender did: what cannot be used is counted as a drop.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import PacketError
from halftunnel_vpn.inet import ip

MAX_BYTES: Final = 4 * 1024 * 1024
"""Bytes of payload, with FRAGMENT_COST for each fragment, that wait in all unless told otherwise."""
MAX_DATAGRAMS: Final = 256
"""Datagrams that wait for their fragments at once unless told otherwise."""
MAX_FRAGMENTS: Final = 128
"""Fragments of one datagram: 64 KiB in pieces of 512 bytes."""
FRAGMENT_COST: Final = 128
"""Bytes charged for the mere existence of a fragment, so that tiny ones are not cheap."""
REASSEMBLY_TIMEOUT: Final = 30.0
"""Seconds a datagram may wait, counted from its first fragment to arrive (RFC 1122, 3.3.2: 60; Linux: 30)."""

MAX_PAYLOAD_V4: Final = ip.MAX_PACKET - ip.IPV4_HEADER_LENGTH
"""Bytes of payload for which the rebuilt header has room; in IPv6 every fragment that parses fits."""
REPEATED: Final = "fragment-repeated"

_Key = tuple[bytes, bytes, int, int]


class _Datagram:
    """The fragments of one datagram so far, in the order of their offsets."""

    __slots__ = ("condemned", "cost", "deadline", "end", "header", "offsets", "pieces", "received")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.offsets: list[int] = []
        self.pieces: list[bytes] = []
        self.received = 0
        self.end = -1  # the length of it all, known when the last fragment is here
        # protocol, hop limit and traffic class, as the fragment at offset 0 has them
        self.header: tuple[int, int, int] | None = None
        self.cost = FRAGMENT_COST
        self.condemned = False

    def place(self, packet: ip.IpPacket, fragment: ip.Fragment) -> str | None:
        """Keep a fragment where it belongs; returns the reason why not."""
        piece = bytes(packet.payload)
        start = fragment.offset
        end = start + len(piece)
        offsets, pieces = self.offsets, self.pieces
        at = bisect_left(offsets, start)
        overlaps_next = at < len(offsets) and offsets[at] < end
        if overlaps_next and offsets[at] == start and pieces[at] == piece:
            if fragment.more == (end != self.end):
                return REPEATED
        if overlaps_next or (at and offsets[at - 1] + len(pieces[at - 1]) > start):
            return "fragment-overlap"
        if self.end >= 0:
            if end > self.end or not fragment.more:
                return "fragment-inconsistent"
        elif not fragment.more and at < len(offsets):
            return "fragment-inconsistent"
        if packet.version == 4 and end > MAX_PAYLOAD_V4:
            return "fragment-too-big"
        if len(offsets) == MAX_FRAGMENTS:
            return "fragment-too-many"
        offsets.insert(at, start)
        pieces.insert(at, piece)
        self.received += len(piece)
        self.cost += FRAGMENT_COST + len(piece)
        if not fragment.more:
            self.end = end
        if not start:
            self.header = packet.protocol, packet.hop_limit, packet.traffic_class
        return None

    def condemn(self) -> int:
        """Refuse this datagram for good, what has not come yet included; returns how many bytes are free."""
        freed = self.cost - FRAGMENT_COST
        self.offsets, self.pieces, self.header = [], [], None
        self.cost = FRAGMENT_COST
        self.condemned = True
        return freed


class Reassembler:
    """Collects fragments and hands back whole packets. ``now`` is monotonic seconds.

    When a bound is reached, the datagram that has waited longest makes room. Datagrams are dropped for
    fragment-timeout, fragment-evicted, fragment-overlap, fragment-inconsistent (two ends, or data behind the
    end), fragment-too-big, fragment-too-many, fragment-nested and the reasons of :func:`ip.parse`; single
    fragments for fragment-repeated and fragment-late (of a datagram that is condemned already).
    """

    def __init__(
        self,
        counters: Counters,
        *,
        max_bytes: int = MAX_BYTES,
        max_datagrams: int = MAX_DATAGRAMS,
        timeout: float = REASSEMBLY_TIMEOUT,
    ) -> None:
        self._counters = counters
        self._max_bytes = max_bytes
        self._max_datagrams = max_datagrams
        self._timeout = timeout
        self._waiting: dict[_Key, _Datagram] = {}  # the oldest first
        self.bytes_held = 0

    def __len__(self) -> int:
        """Return how many datagrams wait, the condemned ones included."""
        return len(self._waiting)

    @property
    def next_deadline(self) -> float | None:
        """When :meth:`expire` has something to do; None while nothing waits."""
        for datagram in self._waiting.values():
            return datagram.deadline
        return None

    def add(self, packet: ip.IpPacket, now: float) -> ip.IpPacket | None:
        """Take one IP packet; return it if it is whole, the datagram that it completes, or None.

        The datagram has a header of its own: hop limit, traffic class and protocol are those of its first
        fragment, options are gone. The payload is copied, the frame of ``packet`` may be used again.
        """
        fragment = packet.fragment
        if fragment is None:
            return packet
        self.expire(now)
        # In IPv6 only the first fragment has the protocol, so it is not part of the key.
        protocol = packet.protocol if packet.version == 4 else -1
        key = (packet.source, packet.destination, protocol, fragment.identification)
        datagram = self._waiting.get(key)
        if datagram is None:
            while len(self._waiting) >= self._max_datagrams:
                self._remove_oldest("fragment-evicted")
            datagram = self._waiting[key] = _Datagram(now + self._timeout)
            self.bytes_held += datagram.cost
        if datagram.condemned:
            self._counters.drop("fragment-late")
            return None
        refusal = datagram.place(packet, fragment)
        if refusal is not None:
            self._counters.drop(refusal)
            if refusal != REPEATED:
                self.bytes_held -= datagram.condemn()
            return None
        self.bytes_held += FRAGMENT_COST + len(packet.payload)
        if datagram.received == datagram.end:
            self._remove(key)
            return self._whole(key, datagram)
        while self.bytes_held > self._max_bytes:
            self._remove_oldest("fragment-evicted")
        return None

    def expire(self, now: float) -> None:
        """Discard the datagrams that have waited too long."""
        while (deadline := self.next_deadline) is not None and deadline <= now:
            self._remove_oldest("fragment-timeout")

    def _remove_oldest(self, reason: str) -> None:
        if not self._remove(next(iter(self._waiting))).condemned:
            self._counters.drop(reason)

    def _remove(self, key: _Key) -> _Datagram:
        datagram = self._waiting.pop(key)
        self.bytes_held -= datagram.cost
        return datagram

    def _whole(self, key: _Key, datagram: _Datagram) -> ip.IpPacket | None:
        """Return the IP packet that was cut into the fragments of ``datagram``."""
        source, destination, _, identification = key
        assert datagram.header is not None  # offset 0 is among them, or the lengths would not add up
        protocol, hop_limit, traffic_class = datagram.header
        header = ip.build(
            source, destination, protocol, datagram.end,
            hop_limit=hop_limit, traffic_class=traffic_class, identification=identification & 0xFFFF,
        )  # fmt: skip
        try:
            packet = ip.parse(memoryview(b"".join((header, *datagram.pieces))))
        except PacketError as error:
            self._counters.drop(error.reason)
            return None
        if packet.fragment is not None:
            self._counters.drop("fragment-nested")
            return None
        return packet
