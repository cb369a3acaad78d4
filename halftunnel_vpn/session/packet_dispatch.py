"""Dispatch the trains that arrive on the legs of a session, packet by packet, to their streams."""

from __future__ import annotations

from typing import Final, Protocol

from halftunnel_vpn.errors import FlowControlError, PeerError, SessionExpired
from halftunnel_vpn.protocol.interfaces import DatagramHandler, StreamHandler
from halftunnel_vpn.protocol.records import MAX_TRAIN
from halftunnel_vpn.protocol.stream_messages import (
    Keepalive,
    KeepaliveKind,
    OpenRequest,
    ResetCode,
    StreamKind,
    decode_credit,
    decode_offender,
    decode_reset,
)
from halftunnel_vpn.protocol.wire import HEADER_LENGTH, Buffer, Packet, PacketType, iter_train
from halftunnel_vpn.session.byte_stream import ByteStream
from halftunnel_vpn.session.context import SessionContext
from halftunnel_vpn.session.datagram_stream import DatagramStream
from halftunnel_vpn.session.keepalive import LegKeepalive
from halftunnel_vpn.session.leg_set import LegSet
from halftunnel_vpn.session.legs import SessionLeg
from halftunnel_vpn.session.receipts import (
    PADDING_RECEIPT_INTERVAL,
    PADDING_RIDE_BYTES,
    RECEIPT_BYTES,
    RIDE_BYTES,
)
from halftunnel_vpn.session.stream import Stream
from halftunnel_vpn.session.stream_table import StreamTable
from halftunnel_vpn.session.urgent_leg import UrgentLegs

_KEEPALIVE_BYTE: Final = bytes((PacketType.KEEPALIVE,))
"""Flags of the first packet in a train that is a keepalive: without padding nothing follows it."""

_ZEROS: Final = bytes(MAX_TRAIN)

MAX_REFUSED: Final = 1024
"""Streams beyond a bound whose RESET the client has not acknowledged; with one more its leg is closed."""

MAX_VIOLATIONS: Final = 16
"""Streams of a session that end because its peer broke their rules; each further one costs it a leg."""

DATAGRAM_KINDS: Final = frozenset({StreamKind.UDP, StreamKind.ICMP})


class Acceptor(Protocol):
    """The exit's side of opening a stream: returns the handler, then accepts or resets the stream."""

    def stream_opened(self, stream: ByteStream, request: OpenRequest, now: float) -> StreamHandler:
        """Take a byte stream that the client wants."""
        ...

    def datagrams_opened(self, stream: DatagramStream, request: OpenRequest, now: float) -> DatagramHandler:
        """Take a datagram stream that the client wants."""
        ...


class PacketDispatch:
    """The receiving half of a session."""

    __slots__ = (
        "_acceptor",
        "_context",
        "_keepalive",
        "_leg_set",
        "_sends",
        "_table",
        "_urgent_legs",
        "_violations",
    )

    def __init__(
        self,
        context: SessionContext,
        table: StreamTable,
        leg_set: LegSet,
        keepalive: LegKeepalive,
        urgent_legs: UrgentLegs,
        acceptor: Acceptor | None,
    ) -> None:
        self._context = context
        self._table = table
        self._leg_set = leg_set
        self._keepalive = keepalive
        self._urgent_legs = urgent_legs
        self._acceptor = acceptor
        self._sends = context.sends
        self._violations = 0

    def train_received(self, leg: SessionLeg, plaintext: Buffer, now: float) -> None:
        """Dispatch the opened record of ``leg``. Raises PeerError for a violation: close the leg then."""
        context = self._context
        if context.is_closed:
            return
        leg.last_received = now
        leg.records_received += 1
        leg.bytes_received += len(plaintext)
        if plaintext == leg.padding_train:
            leg.packets_received += 1
            leg.padding_received += len(plaintext)
            if leg.direction is not self._sends:
                self._padding_came(leg, len(plaintext), now)
            return
        streams = self._table.streams
        packets = iter_train(plaintext, context.session_id)
        is_padding = packets[-1].type is PacketType.PADDING and not _holds_data(packets)
        if leg.proves_by_hearing and not is_padding and plaintext[3:4] != _KEEPALIVE_BYTE:
            leg.owes_proof = True  # when it falls silent from now on, it is pinged
            if not leg.is_watched:
                self._keepalive.used(leg, now)
        leg.packets_received += len(packets)
        last = len(packets) - 1
        for place, packet in enumerate(packets):
            type_, _, stream_id, sequence, acknowledgement, payload = packet
            stream = streams.get(stream_id)
            if stream is None:
                self._packet_without_stream(leg, packet, place == last, now)
                continue
            try:
                stream.acknowledged(acknowledgement, now)
                if type_ is PacketType.ACK:
                    stream.credited(decode_credit(payload), now)
                elif type_ is PacketType.RESET:
                    self._reset_received(stream, sequence, payload, now)
                elif type_ is PacketType.OPEN and not context.is_client:
                    context.acknowledgements.stateless(stream_id, sequence + 1)  # sent again on another leg
                else:
                    if type_ is PacketType.DATA and place < last:
                        behind = packets[place + 1]
                        if behind.type is PacketType.FIN:
                            stream.fin_follows = behind.follows(packet)
                    stream.packet_arrived(type_, sequence, payload, now)
            except FlowControlError as error:
                context.counters.drop(error.reason)
                stream.break_off(ResetCode.PROTOCOL_ERROR, now)
                self._violations += 1
                if self._violations > MAX_VIOLATIONS:
                    raise FlowControlError("too-many-violations") from error
            if stream.is_over:
                self._table.settle(stream)
        if is_padding and not last:
            leg.padding_train = bytes(plaintext)
        if leg.direction is self._sends:
            return
        if is_padding:
            self._padding_came(leg, len(plaintext), now)
            return
        leg.untold_bytes += len(plaintext)
        if leg.untold_bytes >= RECEIPT_BYTES:
            context.acknowledgements.receipt(leg)
        elif leg.untold_bytes >= RIDE_BYTES:
            context.acknowledgements.receipt_soon(leg, now)

    def _padding_came(self, leg: SessionLeg, count: int, now: float) -> None:
        """Count ``count`` bytes without data, for which a receipt has time."""
        leg.untold_bytes = untold = leg.untold_bytes + count
        if untold >= RIDE_BYTES and (
            untold >= PADDING_RIDE_BYTES or now - leg.told_at >= PADDING_RECEIPT_INTERVAL
        ):
            self._context.acknowledgements.receipt_of_padding(leg, now)

    def _packet_without_stream(self, leg: SessionLeg, packet: Packet, is_last: bool, now: float) -> None:
        context, numbers = self._context, self._table.numbers
        type_, _, stream_id, sequence, acknowledgement, payload = packet
        if type_ is PacketType.KEEPALIVE:
            self._keepalive_received(leg, payload, now)
        elif type_ is PacketType.PADDING:
            if stream_id or sequence or acknowledgement or not is_last:
                raise PeerError("packet-out-of-place", type_.name)
            if bytes(payload) != _ZEROS[: len(payload)]:
                raise PeerError("padding-not-zero")
            leg.padding_received += HEADER_LENGTH + len(payload)
        elif type_ is PacketType.ACK:
            if stream_id == 0:  # otherwise of a stream that is over
                self._leg_set.receipt_received(sequence, decode_credit(payload), acknowledgement, now)
        elif stream_id == 0:
            if type_ is PacketType.RESET:
                raise SessionExpired("the peer has ended the session")
            raise PeerError("packet-out-of-place", type_.name)
        elif type_ is PacketType.OPEN and not context.is_client:
            self._open_received(stream_id, sequence, payload, now)
        else:
            if type_ is PacketType.RESET and not context.is_client:
                numbers.use(stream_id)  # given up before its OPEN came here: it will never be opened
            if numbers.is_to_come(stream_id):
                context.counters.drop("packet-before-open")
            else:
                context.acknowledgements.stateless(stream_id, sequence + 1)

    def _keepalive_received(self, leg: SessionLeg, payload: memoryview, now: float) -> None:
        message = Keepalive.decode(payload)
        self._leg_set.records_arrived(leg, message.records_received, now)
        if message.kind is KeepaliveKind.RETIRE:
            self._leg_set.asked_to_retire(message.id, message.sent_us / 1e6, now)
        elif message.kind is KeepaliveKind.URGENT or message.kind is KeepaliveKind.WANTS_LEG:
            self._urgent_legs.received(message.kind, message.id, now)
        else:
            self._keepalive.received(leg, message, now)

    def _open_received(self, stream_id: int, sequence: int, payload: memoryview, now: float) -> None:
        context, table = self._context, self._table
        if len(table.refused) >= MAX_REFUSED:
            raise FlowControlError("too-many-refusals")
        if not table.numbers.use(stream_id):
            context.acknowledgements.stateless(stream_id, sequence + 1)
            return
        request = OpenRequest.decode(payload)
        assert self._acceptor is not None
        if request.kind in DATAGRAM_KINDS:
            datagrams = DatagramStream(context, stream_id, request.kind)
            table.add(datagrams)
            context.acknowledgements.stateless(stream_id, 1)
            if not self._is_full(datagrams):
                datagrams.handler = self._acceptor.datagrams_opened(datagrams, request, now)
        else:
            stream = ByteStream(context, stream_id, request.kind, request.window, now)
            stream.receiving.expected = 1
            table.add(stream)
            context.acknowledgements.soon(stream.receiving, now)
            stream.receiving.packets_unacknowledged = 1
            if not self._is_full(stream):
                stream.handler = self._acceptor.stream_opened(stream, request, now)

    def _is_full(self, stream: Stream) -> bool:
        limits, counters = self._context.limits, self._context.counters
        memory = limits.memory
        if len(self._table.streams) > limits.max_streams:
            counters.drop("too-many-streams")
        elif memory is not None and memory.is_full:
            counters.drop("stream-memory-full")
        else:
            return False
        self._table.refused.add(stream.stream_id)
        stream.reset(ResetCode.LIMIT)
        return True

    def _reset_received(self, stream: Stream, sequence: int, payload: memoryview, now: float) -> None:
        code = decode_reset(payload)
        self._context.acknowledgements.stateless(stream.stream_id, sequence + 1)
        stream.offender = decode_offender(payload)
        stream.reset_received(code, now)
        self._table.discard(stream)


def _holds_data(packets: list[Packet]) -> bool:
    """Return whether a padded train has anything for a stream, and not only receipts and keepalives."""
    for packet in packets:
        if packet.stream_id:
            return True
    return False
