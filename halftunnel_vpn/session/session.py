"""One session: the streams and legs of one client, at either end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import SessionError, SessionExpired, WireError
from halftunnel_vpn.protocol.interfaces import Buffer, DatagramHandler, StreamHandler
from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.protocol.records import MAX_TRAIN
from halftunnel_vpn.protocol.stream_messages import OpenRequest, ResetCode, encode_reset
from halftunnel_vpn.protocol.wire import PacketType, encode_header
from halftunnel_vpn.session.acknowledgements import Acknowledgements
from halftunnel_vpn.session.datagrams import DatagramStream
from halftunnel_vpn.session.intervals import IntervalTable
from halftunnel_vpn.session.keepalive import Keepalive
from halftunnel_vpn.session.leg_set import LegSet
from halftunnel_vpn.session.legs import SHARE_PATIENCE, LegPolicy, RoundRobin, SessionLeg
from halftunnel_vpn.session.limits import Acceptor, SessionLimits
from halftunnel_vpn.session.packet_dispatch import PacketDispatch
from halftunnel_vpn.session.receiving import WindowPool
from halftunnel_vpn.session.scheduler import Scheduler, Stream
from halftunnel_vpn.session.sending import Train
from halftunnel_vpn.session.stream import ByteStream
from halftunnel_vpn.session.stream_ids import StreamNumbers
from halftunnel_vpn.timers import Wheel

TRAINS_PER_PUMP: Final = 4
"""Trains sent before other events get their turn: about half a millisecond."""

RETRY_INTERVAL: Final = 5.0
"""Seconds between two looks for packets that nothing has acknowledged."""

RETRY_AFTER: Final = 15.0
"""Seconds after which such a packet goes out again although its leg seems alive."""


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
        self._policy: LegPolicy = policy or RoundRobin()
        self._initial_credit = initial_credit
        self.numbers = StreamNumbers()
        self.acknowledgements = Acknowledgements(session_id, wheel, wake, counters)
        self._patience = wheel.timer(lambda now: wake())
        self._retry_timer = wheel.timer(self._retry)
        self._retry_timer.arm(now + RETRY_INTERVAL)
        self._keepalive = Keepalive(self, wheel, random, limits.keepalive, intervals)
        self._sends = Direction.UPSTREAM if is_client else Direction.DOWNSTREAM
        self.leg_set = LegSet(self, self._keepalive, self._sends, wheel)
        self.legs = self.leg_set.all
        self._dispatch = PacketDispatch(self, acceptor, self._keepalive, self._sends)
        self.train_received = self._dispatch.train_received
        """Takes the opened record of a leg: :meth:`PacketDispatch.train_received`, called directly."""

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
        if self.limits.memory is not None and self.limits.memory.is_full:
            self.counters.drop("stream-memory-full")
            raise SessionError("the streams that are open hold all memory there is for them")
        number = self.numbers.next
        self.now = now
        return number

    def _opened(self, stream: Stream) -> None:
        """Its request could be encoded: only now is the number used, so the exit sees no gap."""
        self.numbers.use(stream.stream_id)
        self.add(stream)

    def served(self, stream: Stream) -> None:
        """The scheduler has nothing more to send for ``stream``: forget it if it is over."""
        if stream.is_over:
            self.remove(stream)

    def add(self, stream: Stream) -> None:
        """``stream`` is there from now on."""
        self.streams[stream.stream_id] = stream
        if self.limits.memory is not None:
            self.limits.memory.take(stream.cost)

    def forget(self, stream: Stream) -> bool:
        """``stream`` is there no more; False when that was known already."""
        if self.streams.pop(stream.stream_id, None) is None:
            return False
        self._dispatch.refused.discard(stream.stream_id)
        if self.limits.memory is not None:
            self.limits.memory.give_back(stream.cost)
        return True

    def remove(self, stream: Stream) -> None:
        """``stream`` is over, and in peace: what is still owed for it is told."""
        if self.forget(stream):
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

    def _send_train(self, leg: SessionLeg, now: float) -> bool:
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

    def send_on(self, leg: SessionLeg, parts: Sequence[Buffer], now: float) -> None:
        """Send a small train on this very leg, whatever its direction (keepalives, goodbyes)."""
        leg.bytes_sent += leg.port.send_train(parts)
        leg.records_sent += 1
        leg.last_sent = now

    # --- legs ------------------------------------------------------------------------------------

    def leg_joined(self, leg: SessionLeg, now: float) -> None:
        """``leg`` may carry trains from now on."""
        self.now = now
        self.leg_set.add(leg, now)
        self.wake()

    def leg_lost(self, leg: SessionLeg, now: float) -> None:
        """``leg`` is gone: what it carried goes out again on another one, now or when there is one."""
        self.now = now
        if self.leg_set.remove(leg, now):
            self.wake()

    def legs_of(self, direction: Direction) -> list[SessionLeg]:
        """The legs that carry ``direction`` now."""
        return self.leg_set.of(direction)

    def _retry(self, now: float) -> None:
        self._retry_timer.arm(now + RETRY_INTERVAL)
        self.now = now
        for stream in self.streams.values():
            if stream.sending.send_again_before(now - RETRY_AFTER):
                self.counters.count("packets-retried")
                if stream.queue is None:
                    self.scheduler.activate(stream)
        self.wake()

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
            self.forget(stream)
        failure: Exception | None = None
        for stream in streams:
            try:
                stream.reset_received(code, now)
            except Exception as error:  # a fault of one user: everything else ends all the same
                failure = failure or error
        self.leg_set.close_all()
        self._retry_timer.cancel()
        self._patience.cancel()
        self.acknowledgements.clear()
        if failure is not None:
            raise failure
