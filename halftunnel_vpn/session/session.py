"""One session: the streams and legs of one client, at either end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import FlowControlError, PeerError, SessionError, SessionExpired
from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.protocol.opening import (
    OpenRequest,
    ResetCode,
    StreamKind,
    decode_credit,
    decode_reset,
    encode_credit,
    encode_reset,
)
from halftunnel_vpn.protocol.ports import Buffer, DatagramHandler, StreamHandler
from halftunnel_vpn.protocol.wire import HEADER_LENGTH, Packet, PacketType, encode_header, iter_train
from halftunnel_vpn.session.datagrams import DatagramStream
from halftunnel_vpn.session.keepalive import Keepalive
from halftunnel_vpn.session.legs import LegPolicy, LegState, RoundRobin
from halftunnel_vpn.session.receiving import MAX_WINDOW, WindowPool
from halftunnel_vpn.session.scheduler import Scheduler, Stream
from halftunnel_vpn.session.sending import SERIAL_MASK, Train
from halftunnel_vpn.session.stream import ByteStream
from halftunnel_vpn.timers import Wheel

ACK_DELAY = 0.02
"""Seconds an acknowledgement may wait for a packet that carries it."""

ACK_LENGTH = HEADER_LENGTH + 8

TRAINS_PER_PUMP = 16
"""Trains sent before other events get their turn."""

MAX_STATELESS_ACKS = 4096
"""Acknowledgements for streams that are over, waiting for a leg."""

MAX_ID_GAP = 4096
"""Stream numbers that may be outstanding because their OPEN is under way on another leg."""

RETRY_INTERVAL = 5.0
"""Seconds between two looks for packets that nothing has acknowledged."""

RETRY_AFTER = 15.0
"""Seconds after which such a packet goes out again although its leg seems alive."""

DATAGRAM_KINDS = frozenset({StreamKind.UDP, StreamKind.ICMP})


class Acceptor(Protocol):
    """The exit's side of opening a stream: returns the handler, then accepts or resets the stream."""

    def stream_opened(self, stream: ByteStream, request: OpenRequest, now: float) -> StreamHandler:
        """The client wants a byte stream."""
        ...

    def datagrams_opened(self, stream: DatagramStream, request: OpenRequest, now: float) -> DatagramHandler:
        """The client wants a datagram stream."""
        ...


class SessionLimits:
    """Bounds of one session; the defaults are the client's."""

    __slots__ = ("keepalive", "max_streams", "stream_window", "window_pool")

    def __init__(
        self,
        *,
        max_streams: int = 65536,
        window_pool: int = 64 * 1024 * 1024,
        stream_window: int = MAX_WINDOW,
        keepalive: float = 8.0,
    ) -> None:
        self.max_streams = max_streams
        self.window_pool = window_pool
        self.stream_window = stream_window
        self.keepalive = keepalive


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
        self.legs: list[LegState] = []
        self.scheduler = Scheduler()
        self.window_pool = WindowPool(limits.window_pool, limits.stream_window)
        self.round_trip = 0.1
        self.is_closed = False
        self._acceptor = acceptor
        self._policy: LegPolicy = policy or RoundRobin()
        self._initial_credit = initial_credit
        self._highest_id = 0
        self._missing_ids: set[int] = set()
        self._ack_now: dict[ByteStream, None] = {}
        self._ack_soon: dict[ByteStream, None] = {}
        self._stateless: dict[int, int] = {}
        self._ack_timer = wheel.timer(self._ack_due)
        self._retry_timer = wheel.timer(self._retry)
        self._retry_timer.arm(now + RETRY_INTERVAL)
        self._keepalive = Keepalive(self, wheel, random, limits.keepalive)
        self._sends = Direction.UPSTREAM if is_client else Direction.DOWNSTREAM

    # --- streams ---------------------------------------------------------------------------------

    def open_stream(self, request: OpenRequest, handler: StreamHandler, now: float) -> ByteStream:
        """A new byte stream towards the exit. Raises SessionError at the bound or when over."""
        stream = ByteStream(self, self._next_id(now), request.kind, self._initial_credit)
        stream.handler = handler
        stream.request(replace(request, window=stream.receiving.window.granted))
        self._opened(stream)
        return stream

    def open_datagrams(self, request: OpenRequest, handler: DatagramHandler, now: float) -> DatagramStream:
        """A new datagram stream towards the exit. Raises SessionError as :meth:`open_stream` does."""
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
        self.streams[stream.stream_id] = stream

    def served(self, stream: Stream) -> None:
        """The scheduler has nothing more to send for ``stream``: forget it if it is over."""
        if stream.is_over:
            self._remove(stream)

    def _remove(self, stream: Stream) -> None:
        if self.streams.pop(stream.stream_id, None) is None:
            return
        stream.release()
        if isinstance(stream, ByteStream) and (stream in self._ack_now or stream in self._ack_soon):
            self._forget_acknowledgements(stream)
            self.acknowledge_stateless(stream.stream_id, stream.receiving.expected)

    def _forget_acknowledgements(self, stream: ByteStream) -> None:
        self._ack_now.pop(stream, None)
        self._ack_soon.pop(stream, None)

    # --- acknowledgements ------------------------------------------------------------------------

    def acknowledge_now(self, stream: ByteStream) -> None:
        """Send credit and acknowledgement of ``stream`` with the next train."""
        self._ack_soon.pop(stream, None)
        self._ack_now[stream] = None
        self.wake()

    def acknowledge_soon(self, stream: ByteStream, now: float) -> None:
        """Send them within ACK_DELAY unless a packet of the stream carries the acknowledgement before."""
        if stream not in self._ack_now:
            self._ack_soon[stream] = None
            if not self._ack_timer.armed:
                self._ack_timer.arm(now + ACK_DELAY)

    def acknowledge_stateless(self, stream_id: int, number: int) -> None:
        """Acknowledge a packet of a stream that is over or keeps no numbers."""
        if len(self._stateless) >= MAX_STATELESS_ACKS and stream_id not in self._stateless:
            self.counters.drop("ack-queue-full")  # the peer's retry asks again
            return
        self._stateless[stream_id] = number & SERIAL_MASK
        self.wake()

    def _ack_due(self, now: float) -> None:
        for stream in self._ack_soon:
            if stream.receiving.packets_unacknowledged:
                self._ack_now[stream] = None
        self._ack_soon.clear()
        if self._ack_now:
            self.wake()

    def _write_acknowledgements(self, train: Train) -> None:
        session_id = self.session_id
        while self._ack_now and train.room >= ACK_LENGTH:
            stream, _ = self._ack_now.popitem()
            receiving = stream.receiving
            receiving.packets_unacknowledged = 0
            stream.bytes_since_ack = 0
            train.parts.append(
                encode_header(
                    PacketType.ACK, session_id, stream.stream_id, 0, receiving.expected & SERIAL_MASK, 8
                )
                + encode_credit(receiving.window.granted)
            )
            train.room -= ACK_LENGTH
        while self._stateless and train.room >= ACK_LENGTH:
            stream_id, number = self._stateless.popitem()
            train.parts.append(
                encode_header(PacketType.ACK, session_id, stream_id, 0, number, 8) + encode_credit(0)
            )
            train.room -= ACK_LENGTH

    # --- sending ---------------------------------------------------------------------------------

    def pump(self, now: float) -> None:
        """Send trains while a leg is writable and something waits."""
        self.now = now
        for _ in range(TRAINS_PER_PUMP):
            if not (self._ack_now or self._stateless or self.scheduler):
                return
            writable = [leg for leg in self.legs if leg.direction is self._sends and leg.port.writable]
            sent = False
            while writable and not sent:
                leg = writable[0] if len(writable) == 1 else self._policy.choose(writable)
                sent = self._send_train(leg, now)
                writable.remove(leg)
            if not sent:
                return
        self.wake()

    def _send_train(self, leg: LegState, now: float) -> bool:
        train = Train()
        self._write_acknowledgements(train)
        self.scheduler.fill(train, leg, now)
        if not train.parts:
            return False
        leg.bytes_sent += leg.port.send_train(train.parts)
        leg.records_sent += 1
        leg.last_sent = now
        return True

    def send_on(self, leg: LegState, parts: Sequence[Buffer], now: float) -> None:
        """Send a small train on this very leg, whatever its direction (keepalives, goodbyes)."""
        leg.bytes_sent += leg.port.send_train(parts)
        leg.records_sent += 1
        leg.last_sent = now

    # --- receiving -------------------------------------------------------------------------------

    def train_received(self, leg: LegState, plaintext: memoryview, now: float) -> None:
        """The opened record of ``leg``. Raises PeerError when the protocol is broken: the leg must go."""
        self.now = now
        leg.last_received = now
        leg.records_received += 1
        leg.bytes_received += len(plaintext)
        streams = self.streams
        for packet in iter_train(plaintext, self.session_id):
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
                    self.acknowledge_stateless(stream_id, sequence + 1)  # sent again on another leg
                else:
                    stream.packet_arrived(type_, sequence, payload, now)
            except FlowControlError as error:
                self.counters.drop(error.reason)
                stream.reset(ResetCode.PROTOCOL_ERROR)
            if stream.is_over:
                self._remove(stream)

    def _packet_without_stream(self, leg: LegState, packet: Packet, now: float) -> None:
        type_, _, stream_id, sequence, _, payload = packet
        if type_ is PacketType.KEEPALIVE:
            self._keepalive.received(leg, payload, now)
        elif type_ is PacketType.OPEN and not self.is_client:
            self._open_received(stream_id, sequence, payload, now)
        elif type_ is PacketType.RESET and stream_id == 0:
            raise SessionExpired("the peer has ended the session")
        elif type_ in _NUMBERED:
            if stream_id > self._highest_id or stream_id in self._missing_ids:
                self.counters.drop("packet-before-open")
            else:
                self.acknowledge_stateless(stream_id, sequence + 1)
        elif type_ is not PacketType.ACK:
            raise PeerError("packet-out-of-place", type_.name)

    def _open_received(self, stream_id: int, sequence: int, payload: memoryview, now: float) -> None:
        if stream_id > self._highest_id:
            skipped = range(self._highest_id + 1, stream_id)
            if len(skipped) + len(self._missing_ids) > MAX_ID_GAP:
                raise FlowControlError("stream-number-gap")
            self._missing_ids.update(skipped)
            self._highest_id = stream_id
        elif stream_id in self._missing_ids:
            self._missing_ids.discard(stream_id)
        else:
            self.acknowledge_stateless(stream_id, sequence + 1)
            return
        request = OpenRequest.decode(payload)
        assert self._acceptor is not None
        if request.kind in DATAGRAM_KINDS:
            datagrams = DatagramStream(self, stream_id, request.kind)
            self.streams[stream_id] = datagrams
            self.acknowledge_stateless(stream_id, 1)
            if not self._is_full(datagrams):
                datagrams.handler = self._acceptor.datagrams_opened(datagrams, request, now)
        else:
            stream = ByteStream(self, stream_id, request.kind, request.window)
            stream.receiving.expected = 1
            self.streams[stream_id] = stream
            self.acknowledge_soon(stream, now)
            stream.receiving.packets_unacknowledged = 1
            if not self._is_full(stream):
                stream.handler = self._acceptor.stream_opened(stream, request, now)

    def _is_full(self, stream: Stream) -> bool:
        if len(self.streams) <= self.limits.max_streams:
            return False
        self.counters.drop("too-many-streams")
        stream.reset(ResetCode.LIMIT)
        return True

    def _reset_received(self, stream: Stream, sequence: int, payload: memoryview, now: float) -> None:
        code = decode_reset(payload)
        self.acknowledge_stateless(stream.stream_id, sequence + 1)
        stream.reset_received(code, now)
        if isinstance(stream, ByteStream):
            self._forget_acknowledgements(stream)
        self.streams.pop(stream.stream_id, None)

    # --- legs ------------------------------------------------------------------------------------

    def leg_joined(self, leg: LegState, now: float) -> None:
        """``leg`` may carry trains from now on."""
        self.now = now
        self.legs.append(leg)
        self._keepalive.watch(leg, now)
        self.wake()

    def leg_lost(self, leg: LegState, now: float) -> None:
        """``leg`` is gone: what it carried goes out again on another one, now or when there is one."""
        self.now = now
        if leg not in self.legs:
            return
        self.legs.remove(leg)
        self._keepalive.forget(leg)
        if leg.direction is self._sends:
            for stream in self.streams.values():
                if stream.sending.leg_lost(leg) and stream.queue is None:
                    self.scheduler.activate(stream)
                if isinstance(stream, ByteStream) and not stream.resetting:
                    self._ack_now[stream] = None  # acknowledgements and credit may have been lost with it
        self.wake()

    def legs_of(self, direction: Direction) -> list[LegState]:
        """The legs that carry ``direction`` now."""
        return [leg for leg in self.legs if leg.direction is direction]

    def measured(self) -> None:
        """A leg's round trip was measured: the session's is that of its two directions together."""
        halves = [
            min(
                (leg.round_trip for leg in self.legs_of(direction) if leg.round_trip is not None), default=0.0
            )
            for direction in Direction
        ]
        self.round_trip = max(sum(halves) / 2, 0.0005)

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
            for leg in self.legs:
                self.send_on(leg, [goodbye], now)
        streams = list(self.streams.values())
        self.streams.clear()
        for stream in streams:
            stream.reset_received(code, now)
        for leg in list(self.legs):
            self._keepalive.forget(leg)
            leg.port.close("session-closed")
        self.legs.clear()
        self._ack_timer.cancel()
        self._retry_timer.cancel()
        self._ack_now.clear()
        self._ack_soon.clear()
        self._stateless.clear()


_NUMBERED = frozenset({PacketType.DATA, PacketType.FIN, PacketType.RESET, PacketType.OPEN})
