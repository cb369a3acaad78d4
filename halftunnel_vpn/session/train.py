"""Packets that leave together, and those that are kept until they are acknowledged."""

from __future__ import annotations

from halftunnel_vpn.protocol.interfaces import Buffer
from halftunnel_vpn.protocol.records import MAX_TRAIN
from halftunnel_vpn.protocol.wire import PacketType
from halftunnel_vpn.session.legs import SessionLeg


class Train:
    """Packets that leave together, in one record: buffers in order, and the bytes still free.

    A ``cell`` is a train of a fixed size: what does not fit is split wherever that can be done.
    """

    __slots__ = ("datagram_bytes", "is_cell", "packets", "parts", "room", "size")

    def __init__(self, cell: int = 0) -> None:
        self.parts: list[Buffer] = []
        self.is_cell = cell > 0
        # Bytes that there were room for at first.
        self.size = cell or MAX_TRAIN
        self.room = self.size
        self.packets = 0
        self.datagram_bytes = 0


class SentPacket:
    """A packet that is kept until it is acknowledged."""

    __slots__ = ("acknowledged", "chunks", "leg", "length", "sent_at", "sequence", "type")

    def __init__(
        self,
        type_: PacketType,
        sequence: int,
        chunks: list[Buffer],
        length: int,
        leg: SessionLeg,
        sent_at: float,
    ) -> None:
        self.type = type_
        self.sequence = sequence
        self.chunks = chunks
        self.length = length
        self.leg: SessionLeg | None = leg
        self.sent_at = sent_at
        self.acknowledged = False
