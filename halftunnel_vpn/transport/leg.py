"""One WebSocket connection, from the end of its HTTP upgrade to the loss of its socket.

Records go out at once and come in as they arrive; nothing is queued here. Callers check ``writable`` first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from websockets.client import ClientProtocol
from websockets.frames import CloseCode
from websockets.server import ServerProtocol

from halftunnel_vpn.errors import IllegalTransition, RoadError
from halftunnel_vpn.protocol.records import MAX_RECORD
from halftunnel_vpn.protocol.wire import Buffer
from halftunnel_vpn.session.legs import Movement
from halftunnel_vpn.transport.control_frames import SideFrames
from halftunnel_vpn.transport.frames import MASK_BIT, apply_mask, find_frame, masked_frame, plain_frame
from halftunnel_vpn.transport.kernel.notsent_bound import POLL_BYTES, UnsentBound
from halftunnel_vpn.transport.kernel.pace import Pace
from halftunnel_vpn.transport.kernel.tcp_info import movement_of
from halftunnel_vpn.transport.leg_phase import LegPhase
from halftunnel_vpn.transport.receive_buffer import receive_buffer
from halftunnel_vpn.transport.sockets import CLOSE_TIMEOUT, WRITE_LIMIT, keep_queues_short


class LegListener(Protocol):
    """What a leg reports to its owner, always by direct call."""

    def leg_opened(self, leg: Leg) -> None:
        """The upgrade is done; the leg can send. The first call."""

    def record_received(self, leg: Leg, record: Buffer) -> None:
        """One binary message. The buffer ``record`` is only valid during the call."""

    def leg_writable(self, leg: Leg) -> None:
        """``leg.writable`` has become True again."""

    def leg_closed(self, leg: Leg, reason: str) -> None:
        """Nothing more will be received. This is the last call, never from within a call of the leg."""


# Plain names, because the data path reads them all the time.
_OPEN, _CLOSING = LegPhase.OPEN, LegPhase.CLOSING


class Leg(asyncio.BufferedProtocol):
    """A leg; made by :func:`dial` and by :class:`Listener`, used by the session.

    ``bytes_in`` counts the payload of messages that came in, without any header.
    ``opened_at`` and ``last_received_at`` are readings of the clock that the leg was made with.

    Causes of :meth:`LegListener.leg_closed`: ``closed`` (we asked), ``refused`` (by us), ``aborted``,
    ``close-timeout``, ``peer-closed-CODE``, ``connection-lost``, ``text-frame``, ``message-too-big``,
    ``websocket-protocol-error``, ``side-frame-flood``, ``write-limit``.
    """

    __slots__ = (
        "_clock", "_deadline", "_frame", "_held", "_is_full", "_lost", "_mask_bit", "_pace",
        "_paused", "_pong", "_reason", "_resting", "_side", "_state", "_told", "_transport",
        "_unsent", "_view", "_websocket", "bytes_in", "last_received_at", "listener", "opened_at",
        "peer", "writable",
    )  # fmt: skip

    listener: LegListener
    """The owner; may be replaced at any time, also from within a call."""

    def __init__(
        self,
        websocket: ClientProtocol | ServerProtocol,
        transport: asyncio.Transport,
        *,
        peer: str,
        clock: Callable[[], float] = time.monotonic,
        lost: Callable[[Leg], None] | None = None,
    ) -> None:
        """``websocket`` has finished its handshake; ``lost`` is called when the socket is closed."""
        is_client = isinstance(websocket, ClientProtocol)
        self._websocket = websocket
        self._transport = transport
        self._unsent = UnsentBound(transport)
        self._pace = Pace(transport)
        self._resting: asyncio.Handle | None = None
        self._is_full = False
        self._frame = masked_frame if is_client else plain_frame
        self._mask_bit = 0 if is_client else MASK_BIT
        self._clock = clock
        self._lost = lost
        self._state = LegPhase.OPEN
        self._reason = "connection-lost"
        self._told = False
        self._deadline: asyncio.TimerHandle | None = None
        self._held = b""
        self._view = receive_buffer.view  # this loop's; looking it up for each record costs more
        self._paused = False
        self._pong = b""
        self.peer = peer
        self.writable = True
        self.opened_at = self.last_received_at = clock()
        self._side = SideFrames(websocket, self.opened_at)
        self.bytes_in = 0

    def losses(self) -> tuple[bool, bool]:
        """Return whether no queue explains losses, and whether there were many, since this was asked last."""
        return self._unsent.losses()

    @property
    def unsent(self) -> int:
        """Bytes that the kernel had not sent when the leg became writable, if it has a pace."""
        return self._pace.unsent

    @property
    def state(self) -> LegPhase:
        """How far the leg has come."""
        return self._state

    def open(self, listener: LegListener, received: bytes = b"") -> None:
        """Take the transport over and begin; ``received`` came in one piece with the end of the upgrade."""
        self.listener = listener
        self._transport.set_protocol(self)
        keep_queues_short(self._transport)
        listener.leg_opened(self)
        while received:
            room = self.get_buffer(len(received))
            count = min(len(room), len(received))
            room[:count] = received[:count]
            self.buffer_updated(count)
            received = received[count:]

    # --- sending ------------------------------------------------------------------------------------

    def send(self, record: Buffer) -> None:
        """Write one binary message now, whatever ``writable`` says.

        Raises RoadError(leg-not-open) after the leg was closed, ValueError beyond MAX_RECORD bytes.
        """
        length = len(record)
        if self._state is not _OPEN:
            raise RoadError("the leg is closed; nothing can be sent on it", reason="leg-not-open")
        if length > MAX_RECORD:
            raise ValueError(f"a record has at most {MAX_RECORD} bytes, not {length}")
        self._transport.write(self._frame(record))
        unsent = self._unsent
        unsent.written += length
        if unsent.written >= POLL_BYTES or self._pace.rate:
            now = self._clock()
            if now >= unsent.next_check:
                unsent.check(now)
        if self._pace.rate and self._resting is None:
            self.writable = False  # until the loop has written it and the kernel reports the unsent bytes
            self._resting = asyncio.get_running_loop().call_soon(self._rest)
        if not self.writable and self._transport.get_write_buffer_size() > WRITE_LIMIT:
            self.abort("write-limit")

    def set_pace(self, pace: float) -> None:
        """Limit the pace to ``pace`` bytes per second, and let the kernel hold less; 0 means no limit."""
        if self._state is _OPEN:
            self._pace.set(pace)
            self._unsent.set_pace(pace, self._clock())

    def movement(self) -> Movement:
        """Return how far the bytes of its connection have come, TLS and all; asked when no record comes."""
        return movement_of(self._transport)

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Begin the closing handshake; records still come in until the peer answers. Idempotent."""
        if self._state is not LegPhase.OPEN:
            return
        self._enter(LegPhase.CLOSING)
        self._reason = "closed"
        self._websocket.send_close(code, reason)
        self._write_out()

    def refuse(self, code: int = CloseCode.POLICY_VIOLATION, reason: str = "") -> None:
        """Send a Close frame and receive nothing more: the peer broke the rules.

        Idempotent; ``leg_closed`` follows soon, not at once.
        """
        if self._state < LegPhase.DEAF:
            self._reason = "refused"
            self._websocket.fail(code, reason)
            self._write_out()
            self._enter(LegPhase.DEAF)
            asyncio.get_running_loop().call_soon(self._finish, self._reason)

    def abort(self, reason: str = "aborted") -> None:
        """Drop the connection without a Close frame. Idempotent; ``leg_closed`` follows soon, not at once."""
        if self._state is LegPhase.GONE:
            return
        self._reason = reason
        if self._state < LegPhase.DEAF:
            self._enter(LegPhase.DEAF)
        self._transport.abort()

    def pause(self) -> None:
        """Pause receiving, from the next record on, until :meth:`resume`. Use it for short times only."""
        if not self._paused and self._state <= _CLOSING:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Resume receiving, unless the listener pauses it again."""
        if self._paused and self._state <= _CLOSING:
            self._paused = False
            self.get_buffer(0)
            self.buffer_updated(0)
            if not self._paused and self._state <= _CLOSING:
                self._transport.resume_reading()

    # --- what the transport calls -------------------------------------------------------------------

    def pause_writing(self) -> None:
        self._is_full = True
        self.writable = False

    def resume_writing(self) -> None:
        self._is_full = False
        if self._resting is None:
            self._go_on()

    def _rest(self) -> None:
        """Be not writable while the kernel has enough to send at the pace of the leg."""
        self._resting = None
        seconds = self._pace.rest() if self._state is _OPEN else 0.0
        if seconds:
            self.writable = False
            self._resting = asyncio.get_running_loop().call_later(seconds, self._rest)
        elif not self._is_full:
            self._go_on()

    def _go_on(self) -> None:
        if self._state is not LegPhase.OPEN:
            return
        self.writable = True
        if self._pong:
            pong, self._pong = self._pong, b""
            self._transport.write(pong)
        if self.writable:
            self.listener.leg_writable(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        view = self._view
        if not self._held:
            return view
        held = len(self._held)
        view[:held] = self._held
        return view[held:]

    def buffer_updated(self, nbytes: int) -> None:
        view = self._view
        end = len(self._held) + nbytes
        self._held = b""
        self.last_received_at = self._clock()
        mask_bit = self._mask_bit
        position = 0
        while position < end:
            if self._state > _CLOSING:
                return
            found = None if position == end or self._paused else find_frame(view, position, end, mask_bit)
            if found is None:
                break
            start, stop, is_message = found
            if is_message and self._side.fragments is None:
                self.bytes_in += stop - start
                if mask_bit:
                    mask = bytes(view[start - 4 : start])
                    self.listener.record_received(self, apply_mask(view[start:stop], mask))
                else:
                    # Released, so that a listener that keeps the record fails at once.
                    with view[start:stop] as record:
                        self.listener.record_received(self, record)
            else:
                self._side_frame(bytes(view[position : min(stop, end)]))
            position = stop
        if position < end and self._state <= _CLOSING:
            self._held = bytes(view[position:end])

    def eof_received(self) -> None:
        self._finish(self._reason)  # None makes the transport close itself

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish(self._reason)
        self._enter(LegPhase.GONE)
        if self._deadline is not None:
            self._deadline.cancel()
        if self._lost is not None:
            self._lost(self)

    # --- everything that is no whole binary message ---------------------------------------------------

    def _side_frame(self, data: bytes) -> None:
        record, reason, is_goodbye = self._side.take(data, self.bytes_in, self.last_received_at)
        if record is not None:
            self.bytes_in += len(record)
            self.listener.record_received(self, record)
        elif reason is not None:
            self._write_out()
            we_asked = is_goodbye and self._state is LegPhase.CLOSING
            self._finish(self._reason if we_asked else reason)
        elif self.writable:
            self._write_out()
        else:
            # Pongs must not pile up for a peer that does not read; the last one answers them all.
            self._pong = b"".join(self._websocket.data_to_send()[-1:]) or self._pong

    def _write_out(self) -> None:
        for data in self._websocket.data_to_send():
            if data:
                self._transport.write(data)
            elif self._transport.can_write_eof():
                self._transport.write_eof()
            else:
                self._transport.close()

    def _finish(self, reason: str) -> None:
        if self._state < LegPhase.DEAF:
            self._enter(LegPhase.DEAF)
        if not self._told:
            self._told = True
            self.listener.leg_closed(self, reason)

    def _enter(self, state: LegPhase) -> None:
        if state <= self._state:
            raise IllegalTransition(f"a leg that is {self._state.name} cannot become {state.name}")
        self._state = state
        self.writable = False
        if self._deadline is None and state is not LegPhase.GONE:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(CLOSE_TIMEOUT, self.abort, "close-timeout")
