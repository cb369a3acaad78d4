"""The state of one connection: its parts, how it opens and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.flow.interfaces import Buffer, FrameWriter, StreamPort
from halftunnel_vpn.flow.tcp.congestion import CongestionControl
from halftunnel_vpn.flow.tcp.endpoint_config import TcpEndpointConfig
from halftunnel_vpn.flow.tcp.lazy_timer import Deadline
from halftunnel_vpn.flow.tcp.outgoing import Outgoing
from halftunnel_vpn.flow.tcp.receiving import Receiver
from halftunnel_vpn.flow.tcp.sending import Sender
from halftunnel_vpn.flow.tcp.syn_options import NegotiatedOptions, negotiate
from halftunnel_vpn.flow.tcp.tcp_states import RECEIVING, SENDING, TcpEvent, TcpState, next_state
from halftunnel_vpn.inet.tcp import HeaderTemplate, TcpSegment
from halftunnel_vpn.protocol.stream_messages import ResetCode
from halftunnel_vpn.timers import Wheel


class _NoStream:
    """Stands in for the stream before it exists and after it has ended. It accepts and drops everything."""

    __slots__ = ()

    room: Final = 0
    offender: Final = b""
    fin_follows: Final = False

    def send(self, data: Buffer, now: float) -> None:
        pass

    def finish(self) -> None:
        pass

    def reset(self, code: ResetCode) -> None:
        pass

    def consumed(self, count: int, now: float) -> None:
        pass


_NO_STREAM: Final[StreamPort] = _NoStream()


@dataclass(frozen=True, slots=True)
class TcpContext:
    """What all endpoints of one tracker share. ``write`` takes frames for the host.

    ``random`` returns as many random bytes as it is called with.
    """

    config: TcpEndpointConfig
    write: FrameWriter
    wheel: Wheel
    counters: Counters
    random: Callable[[int], bytes]


class EndpointOwner(Protocol):
    """Called by an endpoint about itself."""

    def endpoint_closed(self, endpoint: TcpLifecycle) -> None:
        """Forget the endpoint. Called once, after the end of the connection."""

    def endpoint_refused(self, endpoint: TcpLifecycle, code: ResetCode, now: float) -> bool:
        """Report to the host that the exit cannot connect, while its SYN is unanswered.

        Return True if the failure was reported to the host (by ICMP); otherwise the endpoint sends RST.
        """

    def endpoint_dialed(self, endpoint: TcpLifecycle, is_connected: bool, now: float) -> None:
        """Note that the exit has connected or failed to. Called at most once."""


class TcpLifecycle:
    """What the two sides of an endpoint share: the host's side (segments) and the stream's side (calls).

    ``template`` builds headers towards the host. ``key`` identifies the connection to its owner.

    ``state`` changes only by the table of transitions. The data path reads two values derived from it:
    ``_takes_text`` (the host may still send data) and ``_may_send`` (the stream may still send data).
    """

    __slots__ = (
        "_answered_at",
        "_config",
        "_counters",
        "_deadline",
        "_initial_sequence",
        "_is_dialing",
        "_may_send",
        "_negotiated",
        "_out",
        "_owner",
        "_receiver",
        "_retries",
        "_sender",
        "_stream",
        "_takes_text",
        "_template",
        "key",
        "opened_at",
        "state",
    )

    _negotiated: NegotiatedOptions

    def __init__(
        self,
        syn: TcpSegment,
        template: HeaderTemplate,
        context: TcpContext,
        owner: EndpointOwner,
        *,
        congestion: CongestionControl,
        now: float,
        key: bytes = b"",
    ) -> None:
        self.state = TcpState.SYN_HELD
        self.opened_at = now
        self.key = key
        self._takes_text = False
        self._may_send = False
        self._config = config = context.config
        self._counters = counters = context.counters
        self._template = template
        self._owner = owner
        self._is_dialing = True
        self._stream = _NO_STREAM
        self._initial_sequence = initial_sequence = int.from_bytes(context.random(4), "big")
        self._answered_at: float | None = None
        self._retries = 0
        self._receiver = Receiver(_NO_STREAM, counters)
        self._out = Outgoing(template, context.write, self._receiver, counters)
        self._deadline = Deadline(context.wheel, self._deadline_passed)
        self._sender = Sender(
            initial_sequence + 1,
            self._out,
            config=config,
            congestion=congestion,
            deadline=self._deadline,
            counters=counters,
        )
        self._hold(syn)

    @property
    def offender(self) -> bytes:
        """The address of the router that refused the SYN, as the exit reports it; empty if unknown."""
        return self._stream.offender

    # --- opening ---------------------------------------------------------------------------------

    def _hold(self, syn: TcpSegment) -> None:
        """Record the proposal of ``syn``. It is answered later."""
        config = self._config
        self._negotiated = negotiated = negotiate(syn, self._template, config)
        self._out.mss = negotiated.mss
        self._out.frame_limit = negotiated.frame_limit
        self._receiver.start(
            syn.sequence + 1, negotiated.mss, negotiated.own_shift, config.max_window, sack=negotiated.sack
        )

    def _answer(self, now: float) -> None:
        """Send the first SYN-ACK."""
        self._enter(TcpEvent.ANSWERED)
        self._out.synchronize(self._initial_sequence, self._negotiated.options)
        self._answered_at = now
        self._deadline.set(now + self._config.rto_initial)

    def _answer_again(self) -> None:
        """Send the SYN-ACK again. It no longer measures the round trip (Karn's algorithm)."""
        self._counters.count("tcp-syn-ack-retransmissions")
        self._out.synchronize(self._initial_sequence, self._negotiated.options)
        self._answered_at = None

    def _establish(self, segment: TcpSegment, sequence: int, now: float) -> None:
        """Enter ESTABLISHED: ``segment`` acknowledges our SYN; ``sequence`` is its unwrapped number."""
        negotiated = self._negotiated
        self._enter(TcpEvent.HANDSHAKE_DONE)
        self._deadline.cancel()
        if self._answered_at is not None:
            self._sender.round_trip.sample(now - self._answered_at)
        if self._sender.fin_queued:
            self._enter(TcpEvent.FIN_QUEUED)
        self._sender.start(
            negotiated.mss,
            negotiated.frame_limit,
            segment.window << negotiated.peer_shift,
            sequence,
            now,
            sack=negotiated.sack,
        )

    def _enter(self, event: TcpEvent) -> None:
        self.state = state = next_state(self.state, event)
        self._takes_text = state in RECEIVING
        self._may_send = state in SENDING

    # --- ending ----------------------------------------------------------------------------------

    def _our_fin_acknowledged(self, now: float) -> None:
        self._enter(TcpEvent.FIN_ACKNOWLEDGED)
        if self.state is TcpState.TIME_WAIT:
            self._linger(now)
        elif self.state is TcpState.CLOSED:
            self._release()

    def _their_fin_arrived(self, now: float) -> None:
        stream = self._stream
        self._enter(TcpEvent.FIN_RECEIVED)
        if self.state is TcpState.TIME_WAIT:
            self._linger(now)
        stream.finish()
        if self._out.ack_due:
            self._out.acknowledge(self._sender.nxt)

    def _linger(self, now: float) -> None:
        """Enter TIME_WAIT: keep only what is needed to acknowledge a repeated FIN of the host."""
        self._detach()
        self._deadline.set(now + self._config.time_wait)

    def _dialed(self, is_connected: bool, now: float) -> None:
        """Report the outcome of the exit's attempt, once."""
        if self._is_dialing:
            self._is_dialing = False
            self._owner.endpoint_dialed(self, is_connected, now)

    def _refuse(self, code: ResetCode, now: float) -> None:
        """End the connection: the exit cannot connect, and the SYN is not answered yet."""
        if not self._owner.endpoint_refused(self, code, now):
            self._out.reset(0)
        self._gone(None)

    def _gone(self, code: ResetCode | None) -> None:
        """End the connection at once. Reset the stream with ``code``; None if it has ended already."""
        if code is not None:
            self._stream.reset(code)
        if self.state is not TcpState.CLOSED:
            self._enter(TcpEvent.GONE)
            self._release()

    def _release(self) -> None:
        if self._stream is not _NO_STREAM:
            self._detach()
        self._deadline.end()
        self._out.ack_due = False
        self._owner.endpoint_closed(self)

    def _detach(self) -> None:
        self._stream = self._receiver.stream = _NO_STREAM
        self._sender.release()
        self._receiver.release()

    # --- time ------------------------------------------------------------------------------------

    def _deadline_passed(self, now: float) -> None:
        if self.state is TcpState.SYN_RECEIVED and self._retries < self._config.syn_ack_retries:
            self._retries += 1
            self._answer_again()
            self._deadline.set(now + self._config.rto_initial * 2**self._retries)
        elif self.state is TcpState.TIME_WAIT:
            self._gone(None)
        elif self.state is TcpState.SYN_HELD:
            self._counters.count("tcp-given-up")
            self._stream.reset(ResetCode.TIMED_OUT)
            self._dialed(False, now)
            self._refuse(ResetCode.TIMED_OUT, now)
        elif self.state is TcpState.SYN_RECEIVED:
            self._give_up(now)
        elif self._sender.is_given_up(now):
            self._give_up(now)
        else:
            self._sender.deadline_passed(now)

    def _give_up(self, now: float) -> None:
        """End the connection: the host has not answered for the user timeout."""
        self._counters.count("tcp-given-up")
        self._out.reset(self._sender.nxt)
        self._gone(ResetCode.TIMED_OUT)
