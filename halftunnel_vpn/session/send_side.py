"""The sending half of a byte stream: what waits, what is in flight, what must be sent again."""

from __future__ import annotations

from typing import Final

from halftunnel_vpn.errors import FlowControlError
from halftunnel_vpn.protocol.interfaces import Buffer
from halftunnel_vpn.protocol.records import MAX_TRAIN
from halftunnel_vpn.protocol.wire import HEADER_LENGTH, PacketType, encode_header
from halftunnel_vpn.session.legs import SessionLeg
from halftunnel_vpn.session.memory_budget import KEEP_TO_SEND, MIN_SEND, Memory
from halftunnel_vpn.session.train import SentPacket, Train

RING: Final = 4096
"""Packets of one stream that may be under way, unacknowledged, at once (the receiver's ring)."""

UNSENT_LIMIT: Final = 256 * 1024
"""Bytes one stream takes over before any of them has left: what to send next is decided late.

At the client that is the TCP window of a flow, all of which may wait in the TUN device, before others."""

ROOM_LOW: Final = 64 * 1024
"""Room below which a stream will call ``room_grew`` later: a whole piece of the host's TCP."""

ROOM_AGAIN: Final = UNSENT_LIMIT // 2
"""Room from which on it calls ``room_grew``, or when nothing waits: a small window never has as much."""

SEND_BUFFER: Final = 16 * 1024 * 1024
"""Bytes of one stream that are kept, sent or not, until the peer has acknowledged them."""

MIN_SPLIT: Final = 8 * 1024
"""A chunk is not split to fill up less than this at the end of a train: it travels whole in the next one."""

SERIAL_MASK: Final = 0xFFFF_FFFF
SERIAL_HALF: Final = 0x8000_0000


class SendSide:
    """Numbers, keeps and sends again the packets of one direction of one stream.

    ``credit`` is the cumulative limit in payload bytes that the peer has granted. Sequence numbers are plain
    integers here and 32 bits on the wire. ``memory`` is where the bytes that are kept are counted.
    """

    __slots__ = (
        "accepted",
        "acknowledged",
        "acknowledged_bytes",
        "burst",
        "control",
        "credit",
        "fin_queued",
        "last_active",
        "memory",
        "next_sequence",
        "opening_leg",
        "resend",
        "retained",
        "sent",
        "session_id",
        "stream_id",
        "unsent",
        "unsent_bytes",
    )

    def __init__(self, session_id: bytes, stream_id: int, credit: int, memory: Memory | None = None) -> None:
        self.session_id = session_id
        self.memory = memory
        self.stream_id = stream_id
        self.credit = credit
        # Lists: an empty deque has 760 bytes, and most streams are idle.
        self.unsent: list[Buffer] = []
        self.unsent_bytes = 0
        self.accepted = 0
        self.sent = 0
        self.acknowledged_bytes = 0
        self.next_sequence = 0
        self.acknowledged = 0
        self.retained: list[SentPacket] = []
        self.resend: list[SentPacket] = []
        self.control: list[tuple[PacketType, bytes]] = []
        self.fin_queued = False
        self.opening_leg: SessionLeg | None = None
        self.burst = 0
        self.last_active = 0.0

    @property
    def room(self) -> int:
        """Bytes that may be taken over now. Its right edge moves back only when memory gets short."""
        limit = self.acknowledged_bytes + SEND_BUFFER
        if self.credit < limit:
            limit = self.credit
        room = limit - self.accepted
        unsent_room = UNSENT_LIMIT - self.unsent_bytes
        if unsent_room < room:
            room = unsent_room
        if self.memory is not None:
            least = MIN_SEND - self.accepted + self.acknowledged_bytes
            if room > least:
                spare = self.memory.spare(KEEP_TO_SEND)
                if spare < room:
                    room = spare if spare > least else least
        return room if room > 0 else 0

    @property
    def has_something_to_send(self) -> bool:
        """Whether :meth:`fill` would add a packet to an empty train."""
        if self.resend or self.control:
            return True
        if self.next_sequence - self.acknowledged >= RING:
            return False
        if self.unsent:
            return self.credit > self.sent
        return self.fin_queued

    @property
    def needs(self) -> int:
        """Room in bytes without which :meth:`fill` adds nothing; 0 when it adds nothing anyway."""
        for packet in self.resend:
            if not packet.acknowledged:
                return packet.length + HEADER_LENGTH
        if self.control:
            return len(self.control[0][1]) + HEADER_LENGTH
        return HEADER_LENGTH + 1 if self.has_something_to_send else 0

    @property
    def finished(self) -> bool:
        """Whether all that was ever queued is acknowledged."""
        return not (self.unsent or self.retained or self.control or self.fin_queued)

    def waits_for_other_leg(self, leg: SessionLeg) -> bool:
        """Whether the OPEN packet is in flight on another leg than ``leg``: nothing may overtake it."""
        return self.opening_leg is not None and self.opening_leg is not leg

    def queue(self, data: Buffer) -> None:
        """Take over ``data``."""
        length = len(data)
        if length:
            self.unsent.append(data)
            self.unsent_bytes += length
            self.accepted += length
            if self.memory is not None:
                self.memory.take(length)

    def drop_everything(self) -> None:
        """Forget what waits and what is kept: the stream is being reset."""
        self._let_go(self.accepted - self.acknowledged_bytes)
        self.unsent.clear()
        self.unsent_bytes = 0
        for packet in self.retained:
            packet.acknowledged = True
            if packet.leg is not None:
                packet.leg.outstanding -= 1
        self.retained.clear()
        self.resend.clear()
        self.control.clear()
        self.fin_queued = False
        self.opening_leg = None

    def fill(self, train: Train, leg: SessionLeg, acknowledgement: int, limit: int, now: float) -> int:
        """Add packets to ``train``, about ``limit`` payload bytes at most; return the bytes added."""
        if self.opening_leg is not None and self.opening_leg is not leg:
            return 0
        before = train.room
        while self.resend:
            packet = self.resend[0]
            if not packet.acknowledged:
                if packet.length + HEADER_LENGTH > train.room:
                    return before - train.room
                self._emit_again(train, packet, leg, acknowledgement, now)
            del self.resend[0]
        while self.control:
            type_, payload = self.control[0]
            if len(payload) + HEADER_LENGTH > train.room:
                return before - train.room
            del self.control[0]
            if type_ is PacketType.OPEN:
                self.opening_leg = leg
            self._emit_new(train, type_, [payload], len(payload), leg, acknowledgement, now)
        while self.unsent:
            chunks, size = self._take(train, limit - (before - train.room))
            if not size:
                return before - train.room
            self.unsent_bytes -= size
            self.sent += size
            self.burst += size
            self._emit_new(train, PacketType.DATA, chunks, size, leg, acknowledgement, now)
        if self.fin_queued and train.room >= HEADER_LENGTH and self.next_sequence - self.acknowledged < RING:
            self.fin_queued = False
            self._emit_new(train, PacketType.FIN, [], 0, leg, acknowledgement, now)
        self.last_active = now
        return before - train.room

    def acknowledge(self, wire_number: int) -> bool:
        """Release what the peer has received; return whether there was anything.

        Raises FlowControlError for an acknowledgement of packets that were never sent.
        """
        delta = (wire_number - self.acknowledged) & SERIAL_MASK
        if delta == 0 or delta >= SERIAL_HALF:
            return False
        if self.acknowledged + delta > self.next_sequence:
            raise FlowControlError("ack-never-sent", f"stream {self.stream_id}")
        self.acknowledged += delta
        retained = self.retained
        released = let_go = 0
        for packet in retained:
            if packet.sequence >= self.acknowledged:
                break
            released += 1
            packet.acknowledged = True
            leg = packet.leg
            if leg is not None:
                leg.outstanding -= 1
                leg.proofs += 1
                packet.leg = None
            if packet.type is PacketType.DATA:
                let_go += packet.length
        del retained[:released]
        if let_go:
            self._let_go(let_go)
        self.opening_leg = None
        return True

    def leg_lost(self, leg: SessionLeg) -> bool:
        """Queue again what ``leg`` carried; return whether there was anything."""
        lost = [packet for packet in self.retained if packet.leg is leg]
        return self._queue_again(lost)

    def send_again_before(self, time: float) -> bool:
        """Queue again the oldest packet if it was sent before ``time`` and nothing has acknowledged it."""
        if self.retained and self.retained[0].leg is not None and self.retained[0].sent_at < time:
            return self._queue_again([self.retained[0]])
        return False

    def _let_go(self, count: int) -> None:
        """Stop counting ``count`` bytes that are no longer kept."""
        self.acknowledged_bytes += count
        if self.memory is not None:
            self.memory.give_back(count)

    def _queue_again(self, packets: list[SentPacket]) -> bool:
        if not packets:
            return False
        for packet in packets:
            if packet.leg is not None:
                packet.leg.outstanding -= 1
                packet.leg = None
        waiting = [packet for packet in self.resend if not packet.acknowledged]
        self.resend = sorted(waiting + packets, key=lambda packet: packet.sequence)
        self.opening_leg = None
        return True

    def _take(self, train: Train, budget: int) -> tuple[list[Buffer], int]:
        """Take what the next packet of ``train`` carries off the queue: chunks, and their bytes.

        Chunks stay whole where that costs little room, so that a piece of the host's TCP is one packet, one
        write at the exit, and one frame on the way back.
        """
        limit = self.credit - self.sent
        if budget < limit:
            limit = budget
        room = train.room - HEADER_LENGTH
        if room < limit:
            limit = room
        if limit <= 0 or self.next_sequence - self.acknowledged >= RING:
            return [], 0
        unsent = self.unsent
        chunks: list[Buffer]
        if len(unsent) == 1 and len(unsent[0]) <= limit:
            chunks = [unsent[0]]
            unsent.clear()
            return chunks, len(chunks[0])
        chunks = []
        size = taken = 0
        for head in unsent:
            left = limit - size
            length = len(head)
            if length <= left:
                chunks.append(head)
                taken += 1
                size += length
                continue
            if limit == room and not train.is_cell and self._stays_whole(length, left):
                break
            view = memoryview(head)
            if left:
                chunks.append(view[:left])
                unsent[taken] = view[left:]
                size = limit
            break
        del unsent[:taken]
        return chunks, size

    @staticmethod
    def _stays_whole(length: int, left: int) -> bool:
        """Whether a chunk of ``length`` waits for the next train; this one has ``left`` bytes for it."""
        used = MAX_TRAIN - HEADER_LENGTH - left
        if left < MIN_SPLIT:
            return used > 0
        return length < MAX_TRAIN - HEADER_LENGTH and used > MAX_TRAIN // 2

    def _emit_new(
        self,
        train: Train,
        type_: PacketType,
        chunks: list[Buffer],
        length: int,
        leg: SessionLeg,
        acknowledgement: int,
        now: float,
    ) -> None:
        sequence = self.next_sequence
        self.next_sequence = sequence + 1
        self.retained.append(SentPacket(type_, sequence, chunks, length, leg, now))
        leg.outstanding += 1
        parts = train.parts
        parts.append(
            encode_header(
                type_,
                self.session_id,
                self.stream_id,
                sequence & SERIAL_MASK,
                acknowledgement & SERIAL_MASK,
                length,
            )
        )
        parts += chunks
        train.room -= HEADER_LENGTH + length
        train.packets += 1

    def _emit_again(
        self, train: Train, packet: SentPacket, leg: SessionLeg, acknowledgement: int, now: float
    ) -> None:
        packet.leg = leg
        leg.outstanding += 1
        packet.sent_at = now
        if packet.type is PacketType.OPEN and self.acknowledged <= packet.sequence:
            self.opening_leg = leg
        sequence, acknowledged = packet.sequence & SERIAL_MASK, acknowledgement & SERIAL_MASK
        header = encode_header(
            packet.type, self.session_id, self.stream_id, sequence, acknowledged, packet.length
        )
        train.parts += [header, *packet.chunks]
        train.room -= HEADER_LENGTH + packet.length
        train.packets += 1
