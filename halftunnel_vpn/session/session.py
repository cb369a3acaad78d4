"""One session: the streams and legs of one client, at either end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, islice
from typing import Final

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import FlowControlError, PeerError, SessionError, SessionExpired, WireError
from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.protocol.opening import (
    OpenRequest,
    ResetCode,
    StreamKind,
    decode_credit,
    decode_reset,
    encode_reset,
)
from halftunnel_vpn.protocol.ports import Buffer, DatagramHandler, StreamHandler
from halftunnel_vpn.protocol.records import MAX_TRAIN
from halftunnel_vpn.protocol.wire import Packet, PacketType, encode_header, iter_train
from halftunnel_vpn.session.acknowledgements import Acknowledgements
from halftunnel_vpn.session.contract import Acceptor, SessionLimits
from halftunnel_vpn.session.datagrams import DatagramStream
from halftunnel_vpn.session.intervals import IntervalTable
from halftunnel_vpn.session.keepalive import Keepalive
from halftunnel_vpn.session.leg_set import LegSet
from halftunnel_vpn.session.legs import SHARE_PATIENCE, LegPolicy, LegState, RoundRobin
from halftunnel_vpn.session.receipts import RECEIPT_BYTES, RIDE_BYTES
from halftunnel_vpn.session.receiving import WindowPool
from halftunnel_vpn.session.scheduler import Scheduler, Stream
from halftunnel_vpn.session.sending import SERIAL_MASK, Train
from halftunnel_vpn.session.stream import ByteStream
from halftunnel_vpn.timers import Wheel

TRAINS_PER_PUMP: Final = 4
"""Trains sent before other events get their turn: about half a millisecond."""

MAX_ID_GAP: Final = 4096
"""Stream numbers that may be outstanding because their OPEN is under way on another leg."""

_KEEPALIVE_BYTE: Final = bytes((PacketType.KEEPALIVE,))
"""Flags of the first packet in a train that is a keepalive: nothing follows it."""

RETRY_INTERVAL: Final = 5.0
"""Seconds between two looks for packets that nothing has acknowledged."""

RETRY_AFTER: Final = 15.0
"""Seconds after which such a packet goes out again although its leg seems alive."""

MAX_REFUSED: Final = 1024
"""Streams beyond a bound whose RESET the client has not acknowledged; with one more its leg is closed."""

MAX_VIOLATIONS: Final = 16
"""Streams of a session that end because its peer broke their rules; every one after them costs it a leg."""

DATAGRAM_KINDS: Final = frozenset({StreamKind.UDP, StreamKind.ICMP})


class Session:
    """Streams over legs. Implements StreamOpener on the client.

    ``wake`` is called when :meth:`pump` has something to do; the owner calls it soon, once for many wakes.
    ``now`` is the time of the event being handled: every method that the outside world calls sets it.
    """

    def __init__(
        self,
        session_id: bytes,
        *,
        is_client: bool,
        limits: SessionLimits,
        wheel: Wheel,
        random: Callable[[int], bytes],
        wake: Callable[[], None],
        counters: Counters,
        now: float,
        acceptor: Acceptor | None = None,
        policy: LegPolicy | None = None,
        initial_credit: int = 0,
        intervals: IntervalTable | None = None,
        on_ended: Callable[[], None] = lambda: None,
    ) -> None:
        self.session_id = session_id
        self.is_client = is_client
        self.limits = limits
        self.counters = counters
        self.wake = wake
        self.on_ended = on_ended
        self.now = now
        self.streams: dict[int, Stream] = {}
        self.scheduler = Scheduler()
        self.window_pool = WindowPool(limits.window_pool, limits.stream_window, limits.memory)
        self.round_trip = 0.1
        self.is_closed = False
        self._acceptor = acceptor
        self._policy: LegPolicy = policy or RoundRobin()
        self._initial_credit = initial_credit
        self._highest_id = 0
        self._missing_ids: set[int] = set()
        self._refused: set[int] = set()
        self._violations = 0
        self.acknowledgements = Acknowledgements(session_id, wheel, wake, counters)
        self._patience = wheel.timer(lambda now: wake())
        self._retry_timer = wheel.timer(self._retry)
        self._retry_timer.arm(now + RETRY_INTERVAL)
        self._keepalive = Keepalive(self, wheel, random, limits.keepalive, intervals)
        self._sends = Direction.UPSTREAM if is_client else Direction.DOWNSTREAM
        self.leg_set = LegSet(self, self._keepalive, self._sends, wheel)
        self.legs = self.leg_set.all

    # --- streams ---------------------------------------------------------------------------------

    def open_stream(self, request: OpenRequest, handler: StreamHandler, now: float) -> ByteStream:
        """A new byte stream towards the exit.

        Raises SessionError at the bound or when over, WireError for a destination that cannot be told.
        """
        stream = ByteStream(self, self._next_id(now), request.kind, self._initial_credit)
        stream.handler = handler
        try:
            stream.request(request._replace(window=stream.receiving.window.granted))
        except WireError:
            stream.release()
            raise
        self._opened(stream)
        return stream

    def open_datagrams(self, request: OpenRequest, handler: DatagramHandler, now: float) -> DatagramStream:
        """A new datagram stream towards the exit. Raises as :meth:`open_stream` does."""
        stream = DatagramStream(self, self._next_id(now), request.kind)
        stream.handler = handler
        stream.request(request)
        self._opened(stream)
        return stream

    def _next_id(self, now: float) -> int:
        if self.is_closed:
            raise SessionExpired("the session is over")
        if len(self.streams) >= self.limits.max_streams:
            raise SessionError("too many streams are open")
        if self._highest_id >= SERIAL_MASK:
            raise SessionExpired("the session has used up its stream numbers")
        self.now = now
        return self._highest_id + 1

    def _opened(self, stream: Stream) -> None:
        """Its request could be encoded: only now is the number used, so the exit sees no gap."""
        self._highest_id = stream.stream_id
        self._add(stream)

    def served(self, stream: Stream) -> None:
        """The scheduler has nothing more to send for ``stream``: forget it if it is over."""
        if stream.is_over:
            self._remove(stream)

    def _add(self, stream: Stream) -> None:
        self.streams[stream.stream_id] = stream
        if self.limits.memory is not None:
            self.limits.memory.take(stream.cost)

    def _forget(self, stream: Stream) -> bool:
        if self.streams.pop(stream.stream_id, None) is None:
            return False
        self._refused.discard(stream.stream_id)
        if self.limits.memory is not None:
            self.limits.memory.give_back(stream.cost)
        return True

    def _remove(self, stream: Stream) -> None:
        if self._forget(stream):
            stream.settle()
            if isinstance(stream, ByteStream):
                self.acknowledgements.settle(stream)

    # --- sending ---------------------------------------------------------------------------------

    def pump(self, now: float) -> None:
        """Send trains while a leg is writable and something waits."""
        self.now = now
        for _ in range(TRAINS_PER_PUMP):
            if not (self.acknowledgements or self.scheduler):
                for leg in self.leg_set.senders:
                    leg.under_way.idle()
                return
            writable = [leg for leg in self.leg_set.senders if leg.port.writable]
            sent = False
            while writable and not sent:
                leg = writable[0] if len(writable) == 1 else self._policy.choose(writable)
                sent = self._send_train(leg, now)
                if not sent and self._policy.waits(leg, now):
                    self._patience.arm(now + SHARE_PATIENCE)
                    return
                writable.remove(leg)
            if not sent:
                return
        self.wake()

    def _send_train(self, leg: LegState, now: float) -> bool:
        train = Train()
        acknowledgements = self.acknowledgements
        if acknowledgements:
            leg.owes_proof = True  # nothing acknowledges an acknowledgement
            acknowledgements.write(train)
        self.scheduler.fill(train, leg, now)
        if not train.parts:
            return False
        if acknowledgements.riding:
            acknowledgements.write_receipts(train)
        leg.bytes_sent += leg.port.send_train(train.parts)
        leg.records_sent += 1
        leg.last_sent = now
        leg.under_way.sent(leg.records_sent, MAX_TRAIN - train.room, train.datagram_bytes, now)
        if not leg.is_watched:
            self._keepalive.used(leg, now)
        return True

    def send_on(self, leg: LegState, parts: Sequence[Buffer], now: float) -> None:
        """Send a small train on this very leg, whatever its direction (keepalives, goodbyes)."""
        leg.bytes_sent += leg.port.send_train(parts)
        leg.records_sent += 1
        leg.last_sent = now

    # --- receiving -------------------------------------------------------------------------------

    def train_received(self, leg: LegState, plaintext: memoryview, now: float) -> None:
        """The opened record of ``leg``. Raises PeerError when the protocol is broken: the leg must go."""
        if self.is_closed:
            return
        self.now = now
        leg.last_received = now
        leg.records_received += 1
        leg.bytes_received += len(plaintext)
        if leg.proves_by_hearing and plaintext[3:4] != _KEEPALIVE_BYTE:
            leg.owes_proof = True  # when it falls silent from now on, it is asked
            if not leg.is_watched:
                self._keepalive.used(leg, now)
        streams = self.streams
        packets = iter_train(plaintext, self.session_id)
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
                elif type_ is PacketType.OPEN and not self.is_client:
                    self.acknowledgements.stateless(stream_id, sequence + 1)  # sent again on another leg
                else:
                    if type_ is PacketType.DATA and behind is not None and behind.type is PacketType.FIN:
                        if isinstance(stream, ByteStream):
                            stream.fin_follows = behind.follows(packet)
                    stream.packet_arrived(type_, sequence, payload, now)
            except FlowControlError as error:
                self.counters.drop(error.reason)
                stream.break_off(ResetCode.PROTOCOL_ERROR, now)
                self._violations += 1
                if self._violations > MAX_VIOLATIONS:
                    raise FlowControlError("too-many-violations") from error
            if stream.is_over:
                self._remove(stream)
        if leg.direction is not self._sends:
            leg.untold_bytes += len(plaintext)
            if leg.untold_bytes >= RECEIPT_BYTES:
                self.acknowledgements.receipt(leg)
            elif leg.untold_bytes >= RIDE_BYTES:
                self.acknowledgements.riding[leg] = None

    def _packet_without_stream(self, leg: LegState, packet: Packet, now: float) -> None:
        type_, _, stream_id, sequence, _, payload = packet
        if type_ is PacketType.KEEPALIVE:
            self._keepalive.received(leg, payload, now)
        elif type_ is PacketType.ACK:
            if stream_id == 0:  # else of a stream that is over
                self.leg_set.receipt_received(sequence, decode_credit(payload), now)
        elif stream_id == 0:
            if type_ is PacketType.RESET:
                raise SessionExpired("the peer has ended the session")
            raise PeerError("packet-out-of-place", type_.name)
        elif type_ is PacketType.OPEN and not self.is_client:
            self._open_received(stream_id, sequence, payload, now)
        else:
            if type_ is PacketType.RESET and not self.is_client:
                self._is_new(stream_id)  # given up before its OPEN came here: it will never be opened
            if stream_id > self._highest_id or stream_id in self._missing_ids:
                self.counters.drop("packet-before-open")
            else:
                self.acknowledgements.stateless(stream_id, sequence + 1)

    def _is_new(self, stream_id: int) -> bool:
        """Note a stream number of the client; False for one seen before. Raises FlowControlError."""
        if stream_id == self._highest_id + 1:
            self._highest_id = stream_id
            return True
        if stream_id > self._highest_id:
            skipped = range(self._highest_id + 1, stream_id)
            if len(skipped) + len(self._missing_ids) > MAX_ID_GAP:
                raise FlowControlError("stream-number-gap")
            self._missing_ids.update(skipped)
            self._highest_id = stream_id
            return True
        if stream_id in self._missing_ids:
            self._missing_ids.discard(stream_id)
            return True
        return False

    def _open_received(self, stream_id: int, sequence: int, payload: memoryview, now: float) -> None:
        if len(self._refused) >= MAX_REFUSED:
            raise FlowControlError("too-many-refusals")
        if not self._is_new(stream_id):
            self.acknowledgements.stateless(stream_id, sequence + 1)
            return
        request = OpenRequest.decode(payload)
        assert self._acceptor is not None
        if request.kind in DATAGRAM_KINDS:
            datagrams = DatagramStream(self, stream_id, request.kind)
            self._add(datagrams)
            self.acknowledgements.stateless(stream_id, 1)
            if not self._is_full(datagrams):
                datagrams.handler = self._acceptor.datagrams_opened(datagrams, request, now)
        else:
            stream = ByteStream(self, stream_id, request.kind, request.window)
            stream.receiving.expected = 1
            self._add(stream)
            self.acknowledgements.soon(stream, now)
            stream.receiving.packets_unacknowledged = 1
            if not self._is_full(stream):
                stream.handler = self._acceptor.stream_opened(stream, request, now)

    def _is_full(self, stream: Stream) -> bool:
        memory = self.limits.memory
        if len(self.streams) > self.limits.max_streams:
            self.counters.drop("too-many-streams")
        elif memory is not None and memory.is_full:
            self.counters.drop("stream-memory-full")
        else:
            return False
        self._refused.add(stream.stream_id)
        stream.reset(ResetCode.LIMIT)
        return True

    def _reset_received(self, stream: Stream, sequence: int, payload: memoryview, now: float) -> None:
        code = decode_reset(payload)
        self.acknowledgements.stateless(stream.stream_id, sequence + 1)
        stream.reset_received(code, now)
        if isinstance(stream, ByteStream):
            self.acknowledgements.forget(stream)
        self._forget(stream)

    # --- legs ------------------------------------------------------------------------------------

    def leg_joined(self, leg: LegState, now: float) -> None:
        """``leg`` may carry trains from now on."""
        self.now = now
        self.leg_set.add(leg, now)
        self.wake()

    def leg_lost(self, leg: LegState, now: float) -> None:
        """``leg`` is gone: what it carried goes out again on another one, now or when there is one."""
        self.now = now
        if self.leg_set.remove(leg, now):
            self.wake()

    def legs_of(self, direction: Direction) -> list[LegState]:
        """The legs that carry ``direction`` now."""
        return self.leg_set.of(direction)

    def _retry(self, now: float) -> None:
        self.now = now
        for stream in self.streams.values():
            if stream.sending.send_again_before(now - RETRY_AFTER):
                self.counters.count("packets-retried")
                if stream.queue is None:
                    self.scheduler.activate(stream)
        self.wake()
        self._retry_timer.arm(now + RETRY_INTERVAL)

    # --- the end ---------------------------------------------------------------------------------

    def ended_by_peer(self) -> None:
        """The peer said goodbye: ``on_ended`` decides what follows."""
        self.close(ResetCode.SHUTDOWN, self.now, tell_peer=False)
        self.on_ended()

    def close(self, code: ResetCode, now: float, *, tell_peer: bool = True) -> None:
        """End the session: tell the peer on every leg, abort every stream, close every leg."""
        if self.is_closed:
            return
        self.is_closed = True
        self.now = now
        if tell_peer:
            goodbye = encode_header(PacketType.RESET, self.session_id, 0, 0, 0, 1) + encode_reset(code)
            for leg in list(self.legs):  # one may be gone by being told
                self.send_on(leg, [goodbye], now)
        streams = list(self.streams.values())
        for stream in streams:
            self._forget(stream)
        for stream in streams:
            stream.reset_received(code, now)
        self.leg_set.close_all()
        self._retry_timer.cancel()
        self._patience.cancel()
        self.acknowledgements.clear()
