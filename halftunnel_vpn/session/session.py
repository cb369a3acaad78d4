"""One session: the streams and legs of one client, at either end."""

from __future__ import annotations

from typing import Final

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import SessionError, SessionExpired, WireError
from halftunnel_vpn.protocol.interfaces import DatagramHandler, StreamHandler
from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.protocol.records import MAX_TRAIN
from halftunnel_vpn.protocol.stream_messages import OpenRequest, ResetCode, encode_goodbye
from halftunnel_vpn.protocol.trace_ports import SessionTrace
from halftunnel_vpn.protocol.wire import HEADER_LENGTH
from halftunnel_vpn.session.acknowledgements import Acknowledgements
from halftunnel_vpn.session.byte_stream import ByteStream
from halftunnel_vpn.session.context import SessionContext
from halftunnel_vpn.session.datagram_stream import DatagramStream
from halftunnel_vpn.session.keepalive import LegKeepalive
from halftunnel_vpn.session.leg_set import LegSet
from halftunnel_vpn.session.legs import SHARE_PATIENCE, Legs, RoundRobin, SessionLeg
from halftunnel_vpn.session.limits import SessionLimits
from halftunnel_vpn.session.packet_dispatch import Acceptor, PacketDispatch
from halftunnel_vpn.session.receipts import RECORD_COST
from halftunnel_vpn.session.scheduler import Scheduler
from halftunnel_vpn.session.session_options import SendingOptions, SessionOwner
from halftunnel_vpn.session.shaping import Shaper
from halftunnel_vpn.session.stream import Stream
from halftunnel_vpn.session.stream_table import StreamTable
from halftunnel_vpn.session.train import Train
from halftunnel_vpn.session.urgent_leg import UrgentLegs

TRAINS_PER_PUMP: Final = 4
"""Trains sent before other events get their turn: about half a millisecond."""

RETRY_INTERVAL: Final = 5.0
"""Seconds between checks for packets that nothing has acknowledged."""

RETRY_AFTER: Final = 15.0
"""Seconds after which such a packet is sent again although its leg seems alive."""

DEFAULT_SENDING: Final = SendingOptions()
"""How the exit sends."""


class Session:
    """Streams over legs. Implements StreamOpener on the client.

    ``acceptor`` accepts the streams that the peer opens (exit).
    """

    def __init__(
        self,
        session_id: bytes,
        owner: SessionOwner,
        limits: SessionLimits,
        now: float,
        *,
        is_client: bool,
        acceptor: Acceptor | None = None,
        sending: SendingOptions = DEFAULT_SENDING,
    ) -> None:
        wheel, random, counters, wake, self._on_ended, _ = owner
        # The streams, their numbers and states.
        self._table = StreamTable(limits.memory)
        # Open streams by their ids.
        self.streams = self._table.streams
        # What this end owes the peer: acknowledgements, credit and receipts.
        self._acknowledgements = Acknowledgements(session_id, wheel, wake, counters)
        # Which stream sends next.
        self._scheduler = Scheduler(self._table.served)
        # What streams and legs know of the session.
        self.context = SessionContext(
            session_id,
            owner,
            is_client=is_client,
            limits=limits,
            acknowledgements=self._acknowledgements,
            scheduler=self._scheduler,
        )
        self._initial_credit = sending.initial_credit
        # Ends the wait for a leg whose share must be kept.
        self._patience = wheel.timer(lambda now: wake())
        # Finds packets that nothing has acknowledged.
        self._retry_timer = wheel.timer(self._retry)
        self._retry_timer.arm(now + RETRY_INTERVAL)
        self._legs = Legs(sending.policy or RoundRobin())
        # Chooses the leg for each train.
        self._policy = self._legs.policy
        self.legs = self._legs.all
        # The legs that may get the next train.
        self._senders = self._legs.senders
        # Pings, and the round trip of each leg.
        self._keepalive = LegKeepalive(self.context, self._legs, wheel, random, sending.intervals)
        # Legs that join, are lost, drain and are retired.
        self.leg_set = LegSet(
            self.context, self._legs, self.streams, self._keepalive, wheel, sending.receipt_interval
        )
        # The leg for what is urgent, on a path that loses.
        self.urgent_legs = UrgentLegs(self.context, self._legs, self._keepalive, sending.asks_for_legs)
        dispatch = PacketDispatch(
            self.context, self._table, self.leg_set, self._keepalive, self.urgent_legs, acceptor
        )
        self.shaper: Shaper | None = None
        """Sends on a clock; None: what waits leaves at once."""
        if sending.shaping is not None:
            self.shaper = Shaper(
                sending.shaping,
                self.context,
                self._legs,
                self._keepalive.used,
                self._table.numbers,
                wheel,
                now,
            )
            self._keepalive.divert = self.shaper.take_keepalive
        self.train_received = dispatch.train_received
        """Takes the opened record of a leg: :meth:`PacketDispatch.train_received`, called directly."""

    @property
    def session_id(self) -> bytes:
        """The session's UUID, 16 bytes."""
        return self.context.session_id

    @property
    def is_client(self) -> bool:
        """Whether this is the client's end."""
        return self.context.is_client

    @property
    def limits(self) -> SessionLimits:
        """The bounds that the session was made with."""
        return self.context.limits

    @property
    def counters(self) -> Counters:
        """Where events and drops are counted."""
        return self.context.counters

    @property
    def trace(self) -> SessionTrace | None:
        """What traces the session; None: nothing does."""
        return self.context.trace

    @property
    def round_trip(self) -> float:
        """Seconds of both directions together."""
        return self.context.round_trip

    @property
    def is_closed(self) -> bool:
        """Whether the session is over."""
        return self.context.is_closed

    # --- streams ---------------------------------------------------------------------------------

    def open_stream(self, request: OpenRequest, handler: StreamHandler, now: float) -> ByteStream:
        """Open a byte stream towards the exit.

        Raises SessionError at the bound or when over, WireError for a destination that cannot be encoded.
        """
        stream = ByteStream(self.context, self._next_id(), request.kind, self._initial_credit, now)
        stream.handler = handler
        try:
            stream.request(request.with_window(stream.receiving.window.granted))
        except WireError:
            stream.release()
            raise
        self._opened(stream)
        return stream

    def open_datagrams(self, request: OpenRequest, handler: DatagramHandler, now: float) -> DatagramStream:
        """Open a datagram stream towards the exit. Raises as :meth:`open_stream` does."""
        stream = DatagramStream(self.context, self._next_id(), request.kind)
        stream.handler = handler
        stream.request(request)
        self._opened(stream)
        return stream

    def _next_id(self) -> int:
        if self.context.is_closed:
            raise SessionExpired("the session is over")
        if len(self.streams) >= self.context.limits.max_streams:
            raise SessionError("too many streams are open")
        memory = self.context.limits.memory
        if memory is not None and memory.is_full:
            self.counters.drop("stream-memory-full")
            raise SessionError("open streams use all memory for streams")
        return self._table.numbers.next

    def _opened(self, stream: Stream) -> None:
        # Its request could be encoded: only now is the number used, so the exit sees no gap.
        self._table.numbers.use(stream.stream_id)
        self._table.add(stream)

    # --- sending ---------------------------------------------------------------------------------

    def pump(self, now: float) -> None:
        """Send trains while a leg is writable and something waits."""
        if self.shaper is not None and self.shaper.takes(now):
            return
        shared = self._legs.shared
        if len(shared) == 1 and self._send_alone(shared[0], now):
            return
        for _ in range(TRAINS_PER_PUMP):
            if not (self._acknowledgements or self._scheduler):
                for leg in self._senders:
                    leg.under_way.idle()
                return
            urgent = self._legs.urgent
            if urgent is not None and self._send_urgent(urgent, now):
                continue
            writable = [leg for leg in shared if leg.port.writable]
            sent = False
            while writable and not sent:
                leg = writable[0] if len(writable) == 1 else self._policy.choose(writable, now)
                sent = self._send_train(leg, now)
                if not sent and self._policy.waits(leg, now):
                    self._patience.arm(now + SHARE_PATIENCE)
                    return
                writable.remove(leg)
            if not sent:
                return
        self.wake()

    def _send_alone(self, leg: SessionLeg, now: float) -> bool:
        """Send the one run that waits, the short way; return whether that was all there was to do.

        It is the way of a ping or a query in a quiet tunnel, which takes the longer the more code it meets.
        """
        stream, acknowledgements = self._scheduler.only, self._acknowledgements
        if (
            stream is None
            or self._legs.urgent is not None
            or acknowledgements.riding
            or acknowledgements
            or not leg.port.writable
        ):
            return False
        parts = stream.take_alone(leg, now)
        if not parts:
            return False
        self._scheduler.remove_only()
        leg.send_train(parts, now)
        length = sum(map(len, parts))
        leg.under_way.sent(leg.records_sent, length + RECORD_COST, length - HEADER_LENGTH, now)
        leg.under_way.idle()
        if not leg.is_watched:
            self._keepalive.used(leg, now)
        return True

    def _send_urgent(self, leg: SessionLeg, now: float) -> bool:
        """Send a train of what is urgent on ``leg``, which carries nothing else; return whether there was."""
        if not (self._acknowledgements or self._scheduler.has_urgent):
            leg.under_way.idle()
            return False
        return leg.port.writable and self._send_train(leg, now)

    def _send_train(self, leg: SessionLeg, now: float) -> bool:
        train = Train()
        acknowledgements = self._acknowledgements
        if acknowledgements:
            leg.owes_proof = True  # nothing acknowledges an acknowledgement
            acknowledgements.write(train)
        self._scheduler.fill(train, leg, now)
        if not train.parts:
            return False
        if acknowledgements.riding:
            acknowledgements.write_receipts(train)
        leg.send_train(train.parts, now, train.packets)
        count = MAX_TRAIN - train.room + RECORD_COST
        leg.under_way.sent(leg.records_sent, count, train.datagram_bytes, now)
        if not leg.is_watched:
            self._keepalive.used(leg, now)
        return True

    # --- legs ------------------------------------------------------------------------------------

    def leg_joined(self, leg: SessionLeg, now: float) -> None:
        """Let ``leg`` carry trains from now on."""
        self.leg_set.add(leg, now)
        self.urgent_legs.joined(leg, now)
        self.wake()

    def leg_lost(self, leg: SessionLeg, now: float) -> None:
        """Send what ``leg`` carried again, on another leg, now or once there is one."""
        if self.leg_set.remove(leg, now):
            self.wake()

    def leg_loses(self, leg: SessionLeg, now: float) -> None:
        """The path of ``leg`` loses what no queue explains; its pace is left to TCP."""
        self.leg_set.loses(leg, now)

    def leg_repeats(self, leg: SessionLeg, now: float) -> None:
        """This end sends segments of ``leg`` again and again; what follows them waits."""
        self.urgent_legs.repeats(leg, now)

    def legs_of(self, direction: Direction) -> list[SessionLeg]:
        """Return the legs that carry ``direction`` now."""
        return self._legs.of(direction)

    def wake(self) -> None:
        """Ask the owner to call :meth:`pump` soon."""
        self.context.wake()

    def _retry(self, now: float) -> None:
        self._retry_timer.arm(now + RETRY_INTERVAL)
        for stream in self.streams.values():
            if stream.sending.send_again_before(now - RETRY_AFTER):
                self.counters.count("packets-retried")
                if stream.queue is None:
                    self._scheduler.activate(stream)
        self.wake()

    # --- the end ---------------------------------------------------------------------------------

    def ended_by_peer(self, now: float) -> None:
        """Close without notifying the peer, which has ended the session. Notify the owner."""
        try:
            self.close(ResetCode.SHUTDOWN, now, tell_peer=False)
        finally:  # also when a user of a stream fails
            self._on_ended()

    def close(self, code: ResetCode, now: float, *, tell_peer: bool = True) -> None:
        """End the session: notify the peer on every leg, abort every stream, close every leg."""
        if self.context.is_closed:
            return
        self.context.is_closed = True
        if tell_peer:
            goodbye = encode_goodbye(self.session_id, code)
            for leg in list(self.legs):  # sending may lose a leg
                leg.send_train([goodbye], now)
        streams = list(self.streams.values())
        for stream in streams:
            self._table.discard(stream)
        failure: Exception | None = None
        for stream in streams:
            try:
                stream.reset_received(code, now)
            except Exception as error:  # a fault of one user must not keep the rest open
                failure = failure or error
        self.leg_set.close_all()
        self._retry_timer.cancel()
        self._patience.cancel()
        if self.shaper is not None:
            self.shaper.close()
        self._acknowledgements.clear()
        if failure is not None:
            raise failure
