"""One TCP connection of the host, ended here: calls of the stream, and segments of the host.

The endpoint is always the passive side and does no input or output of its own. Segments are examined in
the order of RFC 9293, 3.10.7.4; what a connection in full swing sends takes a short way before that.
"""

from __future__ import annotations

from typing import Final

from halftunnel_vpn.flow.interfaces import StreamPort
from halftunnel_vpn.flow.tcp.fast_path import TELLING
from halftunnel_vpn.flow.tcp.lifecycle import TcpLifecycle
from halftunnel_vpn.flow.tcp.receiving import ACK_EVERY
from halftunnel_vpn.flow.tcp.recovery import NO_BLOCKS
from halftunnel_vpn.flow.tcp.tcp_states import TcpEvent, TcpState
from halftunnel_vpn.inet.tcp import ACK, FIN, RST, SEQUENCE_MASK, SYN, TcpSegment, seq_diff, seq_lt
from halftunnel_vpn.protocol.stream_messages import ResetCode

ACK_DELAY: Final = 0.04
"""Seconds that an acknowledgement may wait for an answer in a conversation (as in Linux, TCP_DELACK_MIN)."""

MAX_WINDOW: Final = 1 << 30
"""The largest window there is (RFC 7323, 2.3); an older acknowledgement was never meant (RFC 5961, 5.2)."""


class TcpEndpoint(TcpLifecycle):
    """Implements StreamHandler for the stream given to :meth:`attach`, which comes before anything else.

    Whoever feeds :meth:`segment_arrived` calls :meth:`flush` at the end of a batch of frames where it
    returned True: one acknowledgement then serves the whole batch.
    """

    __slots__ = ()

    # --- what the stream tells (StreamHandler), and its owner ------------------------------------

    def attach(self, stream: StreamPort) -> None:
        """The stream through the tunnel that this connection becomes."""
        self._stream = self._receiver.stream = stream
        self._deadline.set(self.opened_at + self._config.syn_held_timeout)
        if self._config.answer_at_once:
            self._answer(self.opened_at)

    def opened(self, now: float) -> None:
        """The exit has connected: answer the SYN."""
        if self.state is TcpState.SYN_HELD:
            self._answer(now)

    def refused(self, code: ResetCode, now: float) -> None:
        """The exit could not connect."""
        if self.state is TcpState.SYN_HELD:
            self._refuse(code, now)
        else:
            self.aborted(code, now)

    def data_received(self, data: memoryview, now: float) -> None:
        """Send ``data`` to the host, now or as soon as its window allows."""
        if self._may_send:
            if self._stream.fin_follows:
                self._enter(TcpEvent.FIN_QUEUED)  # it leaves on the same segment
                self._sender.fin_queued = True
            self._sender.push(data, now)
        elif self.state is TcpState.SYN_RECEIVED:
            self._sender.queue.append(data)

    def finished(self, now: float) -> None:
        """FIN to the host, behind all data."""
        if self._may_send:
            self._enter(TcpEvent.FIN_QUEUED)
            self._sender.finish(now)
        elif self.state is TcpState.SYN_RECEIVED:
            self._sender.fin_queued = True

    def aborted(self, code: ResetCode, now: float) -> None:
        """The stream is over in both directions: so is the connection."""
        if self.state is TcpState.SYN_HELD:
            self._out.reset(0)
        elif self.state is not TcpState.TIME_WAIT and self.state is not TcpState.CLOSED:
            self._out.reset(self._sender.nxt)
        self._gone(None)

    def room_grew(self, now: float) -> None:
        """The stream takes more: tell a host that may be waiting for it."""
        if self._takes_text and self._receiver.update_is_due():
            self._out.acknowledge(self._sender.nxt)

    def abort(self, now: float, code: ResetCode = ResetCode.SHUTDOWN) -> None:
        """End everything now: RST to the host, ``code`` to the stream."""
        stream = self._stream
        self.aborted(code, now)
        stream.reset(code)

    def flush(self, now: float) -> None:
        """Acknowledge what has arrived, unless a segment with data has done so on its way."""
        if self._out.ack_due:
            self._out.acknowledge(self._sender.nxt)

    def flush_or_wait(self, now: float) -> bool:
        """The same; True when it waits for an answer to carry it: call :meth:`flush_late` after ACK_DELAY."""
        out = self._out
        if not out.ack_due:
            return False
        if out.wait(now):
            return True
        out.acknowledge(self._sender.nxt)
        return False

    def flush_late(self, now: float) -> float | None:
        """Acknowledge what has waited for ACK_DELAY; returns when to call again, None when nothing waits."""
        out = self._out
        if out.held_since is None:
            return None  # an answer has carried it
        if now - out.held_since < ACK_DELAY:
            return out.held_since + ACK_DELAY
        out.waited_in_vain(self._sender.nxt)
        return None

    # --- what the host sends ---------------------------------------------------------------------

    def plain_arrived(
        self, number: int, acknowledgement: int, window_field: int, text: memoryview, now: float
    ) -> bool | None:
        """Take in a segment with ACK and no options, if it is simply the next one.

        Returns whether :meth:`flush` has something to do; None when the segment has to be examined, with
        :meth:`segment_arrived`, and nothing has happened yet.
        """
        receiver = self._receiver
        sequence = receiver.next
        if not self._takes_text or number != sequence & SEQUENCE_MASK or receiver.has_gap:
            return None
        sender = self._sender
        una = sender.una
        advance = (acknowledgement - una) & SEQUENCE_MASK
        length = len(text)
        if advance > sender.nxt - una or length > receiver.edge - sequence:
            return None
        out = self._out
        window = window_field << self._agreement.peer_shift
        if advance or not length or una + window != sender.window.edge:
            self._take_acknowledgement(advance, window, NO_BLOCKS, sequence, not length, now)
        if length:
            receiver.next = sequence + length
            out.ack_due = True  # before sending: the answer may come at once, and carry it
            self._stream.send(text, now)
            if receiver.next - receiver.reported >= ACK_EVERY:
                out.acknowledge(sender.nxt)
        return out.ack_due

    def segment_arrived(self, segment: TcpSegment, now: float) -> bool:
        """Take in any segment of this connection; returns whether :meth:`flush` has something to do."""
        if segment.flags & TELLING == ACK and not segment.sack_blocks:
            is_due = self.plain_arrived(
                segment.sequence, segment.acknowledgement, segment.window, segment.payload, now
            )
            if is_due is not None:
                return is_due
        self._examine(segment, now)
        return self._out.ack_due

    def may_be_replaced_by(self, syn: TcpSegment) -> bool:
        """Whether ``syn`` begins a new connection, so that this one may be forgotten (RFC 9293, 3.10.7.4)."""
        return self.state is TcpState.TIME_WAIT and seq_lt(self._receiver.next & SEQUENCE_MASK, syn.sequence)

    def _examine(self, segment: TcpSegment, now: float) -> None:
        """A segment that is not simply the next one."""
        if self.state is TcpState.SYN_HELD:
            self._examine_held(segment)
            return
        if self.state is TcpState.CLOSED:
            self._counters.drop("tcp-closed")
            return
        receiver = self._receiver
        flags = segment.flags
        sequence = receiver.next + seq_diff(segment.sequence, receiver.next & SEQUENCE_MASK)
        length = len(segment.payload) + bool(flags & FIN)
        if not receiver.accepts(sequence, length):
            self._reject(segment, sequence, length, now)
        elif flags & RST:
            if sequence == receiver.next:
                self._counters.count("tcp-resets-received")
                self._gone(ResetCode.CONNECTION_RESET)
            else:
                self._out.challenge(self._sender.nxt, now)
        elif flags & SYN:
            self._out.challenge(self._sender.nxt, now)
        elif self._examine_acknowledgement(segment, sequence, now) and length:
            self._examine_text(segment, sequence, now)

    def _examine_held(self, segment: TcpSegment) -> None:
        """The host has had no answer yet: it can only repeat itself, begin anew, or give up."""
        expected = segment.sequence == (self._receiver.next - 1) & SEQUENCE_MASK
        if segment.flags & SYN and not segment.flags & ACK:
            self._counters.drop("tcp-syn-repeated")
            if not expected:
                self._hold(segment)
        elif segment.flags & RST:
            if segment.sequence == self._receiver.next & SEQUENCE_MASK:
                self._gone(ResetCode.CONNECTION_RESET)
        else:
            self._out.reset_stray(segment)

    def _reject(self, segment: TcpSegment, sequence: int, length: int, now: float) -> None:
        """A segment outside the window: say where we stand, unless it is a RST."""
        flags = segment.flags
        if sequence == self._receiver.next - 1 and length <= 1 and flags & TELLING == ACK:
            # A probe of the connection or of a closed window, perhaps with a byte (RFC 9293, 3.8.4).
            self._counters.count("tcp-probes-answered")
            self._out.challenge(self._sender.nxt, now)
            return
        self._counters.drop("tcp-out-of-window")
        if flags & RST:
            return
        if flags & SYN and self.state is TcpState.SYN_RECEIVED and sequence == self._receiver.next - 1:
            self._answer_again()
            return
        if length and not flags & SYN:
            # Most likely our acknowledgement got lost, and this is a retransmission.
            self._out.acknowledge(self._sender.nxt)
            if self.state is TcpState.TIME_WAIT and flags & FIN:
                self._deadline.set(now + self._config.time_wait)
        else:
            self._out.challenge(self._sender.nxt, now)

    def _examine_acknowledgement(self, segment: TcpSegment, sequence: int, now: float) -> bool:
        """The ACK field; returns whether the rest of the segment counts (RFC 5961, 5.2)."""
        sender = self._sender
        advance = seq_diff(segment.acknowledgement, sender.una & SEQUENCE_MASK)
        in_flight = sender.nxt - sender.una
        if self.state is TcpState.SYN_RECEIVED:
            if advance:
                self._counters.drop("tcp-bad-acknowledgement")
                self._out.reset_stray(segment)
                return False
            self._establish(segment, sequence, now)
            return True
        if advance > in_flight and not (advance == in_flight + 1 and sender.adopt_probe()):
            self._counters.drop("tcp-bad-acknowledgement")
            self._out.challenge(sender.nxt, now)
            return False
        if advance < -MAX_WINDOW:
            self._counters.drop("tcp-bad-acknowledgement")
            self._out.challenge(sender.nxt, now)
            return False
        if advance >= 0:
            window = segment.window << self._agreement.peer_shift
            is_bare = not segment.payload and not segment.flags & FIN
            self._take_acknowledgement(advance, window, segment.sack_blocks, sequence, is_bare, now)
        return self.state is not TcpState.CLOSED

    def _take_acknowledgement(
        self,
        advance: int,
        window: int,
        blocks: tuple[tuple[int, int], ...],
        sequence: int,
        is_bare: bool,
        now: float,
    ) -> None:
        """An acceptable ACK field, with window and SACK blocks; see :meth:`Sender.acknowledged`."""
        sender = self._sender
        freed = sender.acknowledged(advance, window, blocks, sequence, is_bare, now)
        stream = self._stream
        if advance and sender.fin_acknowledged:
            self._our_fin_acknowledged(now)
        if freed:
            stream.consumed(freed, now)

    def _examine_text(self, segment: TcpSegment, sequence: int, now: float) -> None:
        """Data and FIN."""
        if not self._takes_text:
            self._counters.drop("tcp-after-fin")
            return
        receiver = self._receiver
        self._out.ack_due = True
        is_urgent = receiver.arrived(sequence, segment.payload, bool(segment.flags & FIN), now)
        if not self._takes_text:
            return  # the stream has ended the connection meanwhile
        if receiver.finished:
            self._their_fin_arrived(now)
        elif is_urgent:
            self._out.acknowledge(self._sender.nxt)
