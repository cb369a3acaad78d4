"""What comes in on the legs of a session: trains, packet by packet, for streams that are or are to be."""

from __future__ import annotations

from itertools import chain, islice
from typing import TYPE_CHECKING, Final

from halftunnel_vpn.errors import FlowControlError, PeerError, SessionExpired
from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.protocol.stream_messages import (
    OpenRequest,
    ResetCode,
    StreamKind,
    decode_credit,
    decode_offender,
    decode_reset,
)
from halftunnel_vpn.protocol.wire import Packet, PacketType, iter_train
from halftunnel_vpn.session.datagrams import DatagramStream
from halftunnel_vpn.session.keepalive import Keepalive
from halftunnel_vpn.session.legs import SessionLeg
from halftunnel_vpn.session.limits import Acceptor
from halftunnel_vpn.session.receipts import RECEIPT_BYTES, RIDE_BYTES
from halftunnel_vpn.session.scheduler import Stream
from halftunnel_vpn.session.stream import ByteStream

if TYPE_CHECKING:
    from halftunnel_vpn.session.session import Session

_KEEPALIVE_BYTE: Final = bytes((PacketType.KEEPALIVE,))
"""Flags of the first packet in a train that is a keepalive: nothing follows it."""

MAX_REFUSED: Final = 1024
"""Streams beyond a bound whose RESET the client has not acknowledged; with one more its leg is closed."""

MAX_VIOLATIONS: Final = 16
"""Streams of a session that end because its peer broke their rules; every one after them costs it a leg."""

DATAGRAM_KINDS: Final = frozenset({StreamKind.UDP, StreamKind.ICMP})


class PacketDispatch:
    """The receiving half of ``session``. ``sends`` is the direction that this end sends in.

    ``refused`` are the streams beyond a bound whose RESET is not acknowledged yet (exit).
    """

    __slots__ = ("_acceptor", "_keepalive", "_sends", "_session", "_violations", "refused")

    def __init__(
        self, session: Session, acceptor: Acceptor | None, keepalive: Keepalive, sends: Direction
    ) -> None:
        self._session = session
        self._acceptor = acceptor
        self._keepalive = keepalive
        self._sends = sends
        self._violations = 0
        self.refused: set[int] = set()

    def train_received(self, leg: SessionLeg, plaintext: memoryview, now: float) -> None:
        """The opened record of ``leg``. Raises PeerError when the protocol is broken: the leg must go."""
        session = self._session
        if session.is_closed:
            return
        session.now = now
        leg.last_received = now
        leg.records_received += 1
        leg.bytes_received += len(plaintext)
        if leg.proves_by_hearing and plaintext[3:4] != _KEEPALIVE_BYTE:
            leg.owes_proof = True  # when it falls silent from now on, it is asked
            if not leg.is_watched:
                self._keepalive.used(leg, now)
        streams = session.streams
        packets = iter_train(plaintext, session.session_id)
        for packet, behind in zip(packets, chain(islice(packets, 1, None), (None,)), strict=True):
            type_, _, stream_id, sequence, acknowledgement, payload = packet
            stream = streams.get(stream_id)
            if stream is None:
                self._packet_without_stream(leg, packet, now)
                continue
            try:
                stream.acknowledged(acknowledgement, now)
                if type_ is PacketType.ACK:
                    stream.credited(decode_credit(payload), now)
                elif type_ is PacketType.RESET:
                    self._reset_received(stream, sequence, payload, now)
                elif type_ is PacketType.OPEN and not session.is_client:
                    session.acknowledgements.stateless(stream_id, sequence + 1)  # sent again on another leg
                else:
                    if type_ is PacketType.DATA and behind is not None and behind.type is PacketType.FIN:
                        if isinstance(stream, ByteStream):
                            stream.fin_follows = behind.follows(packet)
                    stream.packet_arrived(type_, sequence, payload, now)
            except FlowControlError as error:
                session.counters.drop(error.reason)
                stream.break_off(ResetCode.PROTOCOL_ERROR, now)
                self._violations += 1
                if self._violations > MAX_VIOLATIONS:
                    raise FlowControlError("too-many-violations") from error
            if stream.is_over:
                session.remove(stream)
        if leg.direction is not self._sends:
            leg.untold_bytes += len(plaintext)
            if leg.untold_bytes >= RECEIPT_BYTES:
                session.acknowledgements.receipt(leg)
            elif leg.untold_bytes >= RIDE_BYTES:
                session.acknowledgements.riding[leg] = None

    def _packet_without_stream(self, leg: SessionLeg, packet: Packet, now: float) -> None:
        session = self._session
        type_, _, stream_id, sequence, _, payload = packet
        if type_ is PacketType.KEEPALIVE:
            self._keepalive.received(leg, payload, now)
        elif type_ is PacketType.ACK:
            if stream_id == 0:  # else of a stream that is over
                session.leg_set.receipt_received(sequence, decode_credit(payload), now)
        elif stream_id == 0:
            if type_ is PacketType.RESET:
                raise SessionExpired("the peer has ended the session")
            raise PeerError("packet-out-of-place", type_.name)
        elif type_ is PacketType.OPEN and not session.is_client:
            self._open_received(stream_id, sequence, payload, now)
        else:
            if type_ is PacketType.RESET and not session.is_client:
                session.numbers.use(stream_id)  # given up before its OPEN came here: it will never be opened
            if session.numbers.is_to_come(stream_id):
                session.counters.drop("packet-before-open")
            else:
                session.acknowledgements.stateless(stream_id, sequence + 1)

    def _open_received(self, stream_id: int, sequence: int, payload: memoryview, now: float) -> None:
        session = self._session
        if len(self.refused) >= MAX_REFUSED:
            raise FlowControlError("too-many-refusals")
        if not session.numbers.use(stream_id):
            session.acknowledgements.stateless(stream_id, sequence + 1)
            return
        request = OpenRequest.decode(payload)
        assert self._acceptor is not None
        if request.kind in DATAGRAM_KINDS:
            datagrams = DatagramStream(session, stream_id, request.kind)
            session.add(datagrams)
            session.acknowledgements.stateless(stream_id, 1)
            if not self._is_full(datagrams):
                datagrams.handler = self._acceptor.datagrams_opened(datagrams, request, now)
        else:
            stream = ByteStream(session, stream_id, request.kind, request.window)
            stream.receiving.expected = 1
            session.add(stream)
            session.acknowledgements.soon(stream, now)
            stream.receiving.packets_unacknowledged = 1
            if not self._is_full(stream):
                stream.handler = self._acceptor.stream_opened(stream, request, now)

    def _is_full(self, stream: Stream) -> bool:
        session = self._session
        memory = session.limits.memory
        if len(session.streams) > session.limits.max_streams:
            session.counters.drop("too-many-streams")
        elif memory is not None and memory.is_full:
            session.counters.drop("stream-memory-full")
        else:
            return False
        self.refused.add(stream.stream_id)
        stream.reset(ResetCode.LIMIT)
        return True

    def _reset_received(self, stream: Stream, sequence: int, payload: memoryview, now: float) -> None:
        session = self._session
        code = decode_reset(payload)
        session.acknowledgements.stateless(stream.stream_id, sequence + 1)
        if isinstance(stream, ByteStream):
            stream.offender = decode_offender(payload)
        stream.reset_received(code, now)
        if isinstance(stream, ByteStream):
            session.acknowledgements.forget(stream)
        session.forget(stream)
