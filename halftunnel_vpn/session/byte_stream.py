"""A byte stream: what its user calls, and what the session calls."""

from __future__ import annotations

from typing import Final

from halftunnel_vpn.errors import FlowControlError, StreamClosed
from halftunnel_vpn.protocol.interfaces import Buffer, StreamHandler
from halftunnel_vpn.protocol.stream_messages import (
    OpenReply,
    OpenRequest,
    ResetCode,
    StreamKind,
    encode_reset,
)
from halftunnel_vpn.protocol.wire import PacketType
from halftunnel_vpn.session.context import SessionContext
from halftunnel_vpn.session.legs import SessionLeg
from halftunnel_vpn.session.memory_budget import STREAM_COST
from halftunnel_vpn.session.receive_side import ACK_BYTES, ACK_PACKETS, MIN_WINDOW, ReceiveSide
from halftunnel_vpn.session.send_side import ROOM_AGAIN, ROOM_LOW, SendSide
from halftunnel_vpn.session.stream import Stream
from halftunnel_vpn.session.stream_states import StreamEvent, StreamState, next_state
from halftunnel_vpn.session.train import Train

YOUNG_BYTES: Final = 64 * 1024
"""Bytes a stream may send in one burst before it counts as bulk and yields to interactive ones."""

BURST_PAUSE: Final = 0.1
"""Seconds of silence after which a stream is young again."""


class _Nobody:
    """Stands in for the user of a stream that has none, or is over, so that no reference cycle is left."""

    __slots__ = ()

    def opened(self, now: float) -> None: ...
    def refused(self, code: ResetCode, now: float) -> None: ...
    def data_received(self, data: memoryview, now: float) -> None: ...
    def finished(self, now: float) -> None: ...
    def aborted(self, code: ResetCode, now: float) -> None: ...
    def room_grew(self, now: float) -> None: ...


NOBODY: Final = _Nobody()


class ByteStream(Stream):
    """One reliable stream of a session; implements StreamPort.

    Only the session makes one. It sets ``handler`` before the first packet is handed in, unless the stream
    is refused at a bound: that one has no user.
    """

    __slots__ = (
        # What the streams of the session share.
        "context",
        # Who uses the stream at this end.
        "handler",
        # Whether the user found little room and waits for ``room_grew``.
        "is_low_on_room",
        # When the stream was opened, until its first byte has come (client) or was sent (exit); 0 afterwards.
        "opened_at",
        # The receiving half: packets in order, and the credit that the peer has.
        "receiving",
        "state",
    )

    def __init__(
        self, context: SessionContext, stream_id: int, kind: StreamKind, credit: int, now: float
    ) -> None:
        super().__init__(
            stream_id,
            kind,
            SendSide(context.session_id, stream_id, credit, context.limits.memory),
            None if context.trace is None else context.trace.stream(stream_id, kind),
        )
        self.context = context
        self.handler: StreamHandler = NOBODY
        self.state = StreamState.OPEN
        self.receiving = ReceiveSide(context.window_pool, stream_id)
        self.is_low_on_room = False
        self.opened_at = now

    @property
    def cost(self) -> int:
        """Bytes of memory that the stream is counted with for being there."""
        return STREAM_COST + MIN_WINDOW

    # --- StreamPort: what the user of the stream calls -------------------------------------------

    @property
    def room(self) -> int:
        """Bytes that may be handed to :meth:`send` now; 0 before the stream is open or once it is closing."""
        room = self.sending.room
        if room < ROOM_LOW:
            self.is_low_on_room = True
        return room

    def send(self, data: Buffer, now: float) -> None:
        """Queue ``data``. Raises StreamClosed after :meth:`finish` or once the stream is over."""
        if self.state not in _MAY_SEND:
            raise StreamClosed(f"stream {self.stream_id} sends nothing more in {self.state.name}")
        if self.opened_at and not self.context.is_client:
            self._first_byte(now)
        sending = self.sending
        sending.queue(data)
        if self.queue is None:
            if now - sending.last_active > BURST_PAUSE:
                sending.burst = 0
            self._activate()

    def finish(self) -> None:
        """Send FIN after everything sent so far; do nothing when already finished or over."""
        if self.state in _MAY_SEND:
            self.state = next_state(self.state, StreamEvent.FIN_QUEUED)
            self.sending.fin_queued = True
            self._activate()

    def reset(self, code: ResetCode, offender: bytes = b"") -> None:
        """Drop everything and report ``code`` to the peer; do nothing when the stream is over.

        ``offender`` is the address of the router that is to blame, with HOP_LIMIT_EXCEEDED.
        """
        if self.resetting or not self.is_registered:
            return
        if self.trace is not None and self.state is StreamState.OPEN:
            self.trace.refused(code)
        self.state = next_state(self.state, StreamEvent.RESET)
        self.resetting = True
        self.sending.drop_everything()
        self.receiving.release()
        self.sending.control.append((PacketType.RESET, encode_reset(code, offender)))
        self._activate()

    def consumed(self, count: int, now: float) -> None:
        """Give the peer credit for ``count`` received bytes that the user has consumed."""
        context = self.context
        if self.receiving.window.consume(count, context.round_trip, now):
            context.acknowledgements.now(self.receiving)

    # --- the exit's answers ----------------------------------------------------------------------

    def accept(self, address: bytes = b"", port: int = 0) -> None:
        """Report to the client that the destination has connected, from this address (exit only)."""
        if self.trace is not None:
            self.trace.opened()
        self.state = next_state(self.state, StreamEvent.OPENED)
        reply = OpenReply(self.receiving.window.granted, address, port)
        self.sending.control.append((PacketType.OPEN, reply.encode()))
        self._activate()

    def request(self, request: OpenRequest) -> None:
        """Ask the exit for the stream (client only)."""
        self.sending.control.append((PacketType.OPEN, request.encode()))
        self._activate()

    # --- what the session calls ------------------------------------------------------------------

    @property
    def is_urgent(self) -> bool:
        """Whether the stream goes before bulk transfers."""
        return self.kind is StreamKind.DNS or self.sending.burst < YOUNG_BYTES

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do for the stream at this end."""
        if self.resetting or self.state is StreamState.CLOSED:
            return self.sending.finished
        return False

    @property
    def has_something_to_send(self) -> bool:
        """Whether a train would get a packet of this stream now."""
        sending = self.sending
        if sending.unsent or sending.fin_queued or sending.control or sending.resend:
            return sending.has_something_to_send
        return False

    def must_wait(self, leg: SessionLeg) -> bool:
        """Return whether nothing may leave on ``leg`` now, because OPEN is in flight on another."""
        return self.sending.waits_for_other_leg(leg)

    def fill(self, train: Train, leg: SessionLeg, limit: int, now: float) -> int:
        """Add packets to ``train``; return the bytes added."""
        added = self.sending.fill(train, leg, self.receiving.expected, limit, now)
        if added and not self.receiving.waiting:
            self.receiving.packets_unacknowledged = 0  # the header of each packet acknowledges
        if self.is_low_on_room:
            self._tell_room(now)
        return added

    def packet_arrived(self, type_: PacketType, sequence: int, payload: memoryview, now: float) -> None:
        """Take a DATA, FIN or OPEN packet. Raises FlowControlError beyond the window."""
        if self.resetting:
            return
        if type_ is PacketType.FIN:
            self.fin_follows = False
        receiving = self.receiving
        owed = receiving.packets_unacknowledged
        if not receiving.accept(type_, sequence, payload):
            self.context.acknowledgements.now(receiving)  # a repetition or a gap: acknowledge soon
            return
        self._deliver(type_, payload, now)
        if receiving.waiting:
            while (arrival := receiving.next_waiting()) is not None:
                self._deliver(arrival[0], arrival[1], now)
        if receiving.packets_unacknowledged >= ACK_PACKETS or receiving.bytes_unacknowledged >= ACK_BYTES:
            self.context.acknowledgements.now(receiving)
        elif not owed:
            self.context.acknowledgements.soon(receiving, now)

    def owe_acknowledgement(self) -> None:
        """Acknowledge again with the next train: what was sent before may be lost."""
        if not self.resetting:
            self.context.acknowledgements.now(self.receiving)

    def acknowledged(self, number: int, now: float) -> None:
        """Take the peer's cumulative acknowledgement. Raises FlowControlError for what was never sent."""
        sending = self.sending
        if sending.acknowledge(number):
            if self.queue is None and (sending.unsent or sending.fin_queued):
                if sending.has_something_to_send:
                    self._activate()  # the ring had been full
            if self.is_low_on_room:
                self._tell_room(now)

    def credited(self, limit: int, now: float) -> None:
        """Take the peer's credit: a cumulative limit in bytes; older, smaller values are ignored."""
        sending = self.sending
        if limit > sending.credit:
            sending.credit = limit
            if self.queue is None and sending.has_something_to_send:
                self._activate()
            if self.is_low_on_room:
                self._tell_room(now)

    def reset_received(self, code: ResetCode, now: float) -> None:
        """End the stream: the peer has reset it."""
        was_open = self.state is StreamState.OPEN
        was_over = self.resetting or self.state is StreamState.CLOSED
        self.state = StreamState.CLOSED
        self.release()
        handler, self.handler = self.handler, NOBODY
        if not was_over:
            if was_open:
                if self.trace is not None:
                    self.trace.refused(code)
                handler.refused(code, now)
            else:
                handler.aborted(code, now)
        self.context.acknowledgements.discard(self.receiving)

    def break_off(self, code: ResetCode, now: float) -> None:
        """End a stream on which the peer broke the rules: report ``code`` to the peer and to the user."""
        was_open = self.state is StreamState.OPEN
        was_over = self.resetting or self.state is StreamState.CLOSED
        self.reset(code)
        if was_over:
            return
        if was_open:
            self.handler.refused(code, now)
        else:
            self.handler.aborted(code, now)

    def release(self, unread: int = 0) -> None:
        """Release everything except the window of ``unread`` bytes that the user still holds."""
        self.sending.drop_everything()
        self.receiving.release(unread)

    def settle(self) -> None:
        """Release everything; at the exit, what the user still holds stays counted."""
        held = 0
        if self.context.limits.memory is not None and not self.resetting:
            held = self.receiving.received - self.receiving.window.consumed
        self.release(held)
        self.handler = NOBODY
        self.context.acknowledgements.settle(self.receiving)

    def _deliver(self, type_: PacketType, payload: memoryview, now: float) -> None:
        if self.state in _FINISHED_BY_PEER:
            raise FlowControlError("packet-after-fin", f"stream {self.stream_id}")
        if type_ is PacketType.DATA:
            if self.opened_at and self.context.is_client:
                self._first_byte(now)
            self.receiving.bytes_unacknowledged += len(payload)
            self.handler.data_received(payload, now)
        elif type_ is PacketType.FIN:
            self.state = next_state(self.state, StreamEvent.FIN_RECEIVED)
            self.handler.finished(now)
        elif self.context.is_client and type_ is PacketType.OPEN and self.receiving.expected == 1:
            self.credited(OpenReply.decode(payload).window, now)
            self.state = next_state(self.state, StreamEvent.OPENED)
            if self.trace is not None:
                self.trace.opened()
            self.handler.opened(now)
        else:
            raise FlowControlError("packet-out-of-place", type_.name)

    def _first_byte(self, now: float) -> None:
        """Count how long the first byte from the destination took."""
        self.context.counters.observe(_LATENCIES[self.kind], now - self.opened_at)
        self.opened_at = 0.0
        if self.trace is not None:
            self.trace.first_byte()

    def _tell_room(self, now: float) -> None:
        sending = self.sending
        room = sending.room
        # a small window never has much room: then any room counts once nothing waits
        if self.state in _MAY_SEND and (room >= ROOM_AGAIN or (room and not sending.unsent_bytes)):
            self.is_low_on_room = False
            self.handler.room_grew(now)

    def _activate(self) -> None:
        if self.queue is None:
            self.context.scheduler.activate(self)
        self.context.wake()


_LATENCIES: Final = {kind: f"latency-{kind.name.lower()}" for kind in StreamKind}
# Tuples, because the hash of an enum's member is computed in Python.
_FINISHED_BY_PEER: Final = (StreamState.HALF_CLOSED_REMOTE, StreamState.CLOSED)
_MAY_SEND: Final = (StreamState.ACTIVE, StreamState.OPEN, StreamState.HALF_CLOSED_REMOTE)
