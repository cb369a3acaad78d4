"""One TCP connection of the host, terminated here. It takes calls of the stream and segments of the host.

The endpoint is always the passive side. It does no I/O of its own. Segments are examined in the order of
RFC 9293, 3.10.7.4. The plain segments of an established connection take a fast path before that.
"""

from __future__ import annotations

from typing import Final

from halftunnel_vpn.flow.interfaces import StreamPort
from halftunnel_vpn.flow.tcp.fast_path import EXAMINED_FLAGS
from halftunnel_vpn.flow.tcp.lifecycle import TcpLifecycle
from halftunnel_vpn.flow.tcp.receiving import ACK_EVERY
from halftunnel_vpn.flow.tcp.recovery import NO_BLOCKS
from halftunnel_vpn.flow.tcp.tcp_states import TcpEvent, TcpState
from halftunnel_vpn.inet.tcp import ACK, FIN, RST, SEQUENCE_MASK, SYN, TcpSegment, seq_diff, seq_lt
from halftunnel_vpn.protocol.stream_messages import ResetCode

ACK_DELAY: Final = 0.04
"""Seconds that an acknowledgement may wait for an answer in a conversation (as in Linux, TCP_DELACK_MIN)."""

MAX_WINDOW: Final = 1 << 30
"""The largest window (RFC 7323, 2.3). An acknowledgement that is further back is invalid (RFC 5961, 5.2)."""


class TcpEndpoint(TcpLifecycle):
    """Implements StreamHandler for the stream given to :meth:`attach`, which must be called first.

    The caller of :meth:`segment_arrived` must call :meth:`flush` at the end of the batch of frames if it
    returned True. One acknowledgement then covers the whole batch.
    """

    __slots__ = ()

    # --- events of the stream (StreamHandler), and calls of the owner ----------------------------

    def attach(self, stream: StreamPort, *, answer_at_once: bool = False) -> None:
        """Set the stream through the tunnel that carries this connection.

        ``answer_at_once``: answer the SYN before the exit has connected, as the configuration may ask too.
        """
        self._stream = self._receiver.stream = stream
        self._deadline.set(self.opened_at + self._config.syn_held_timeout)
        if answer_at_once or self._config.answer_at_once:
            self._answer(self.opened_at)

    def opened(self, now: float) -> None:
        """Answer the SYN: the exit has connected."""
        self._dialed(True, now)
        if self.state is TcpState.SYN_HELD:
            self._answer(now)

    def refused(self, code: ResetCode, now: float) -> None:
        """End the connection: the exit could not connect."""
        self._dialed(False, now)
        if self.state is TcpState.SYN_HELD:
            self._refuse(code, now)
        else:
            self.aborted(code, now)

    def data_received(self, data: memoryview, now: float) -> None:
        """Send ``data`` to the host, now or as soon as its window allows."""
        if self._may_send:
            if self._stream.fin_follows:
                self._enter(TcpEvent.FIN_QUEUED)  # the FIN goes out on the same segment
                self._sender.fin_queued = True
            self._sender.push(data, now)
        elif self.state is TcpState.SYN_RECEIVED:
            self._sender.queue.append(data)

    def finished(self, now: float) -> None:
        """Send a FIN to the host behind all data."""
        if self._may_send:
            self._enter(TcpEvent.FIN_QUEUED)
            self._sender.finish(now)
        elif self.state is TcpState.SYN_RECEIVED:
            self._sender.fin_queued = True

    def aborted(self, code: ResetCode, now: float) -> None:
        """Reset the connection: the stream has ended in both directions."""
        if self.state is TcpState.SYN_HELD:
            self._out.reset(0)
        elif self.state is not TcpState.TIME_WAIT and self.state is not TcpState.CLOSED:
            self._out.reset(self._sender.nxt)
        self._gone(None)

    def room_grew(self, now: float) -> None:
        """Send a window update if the host may be waiting for it: the stream takes more data."""
        if self._takes_text and self._receiver.update_is_due():
            self._out.acknowledge(self._sender.nxt)

    def abort(self, now: float, code: ResetCode = ResetCode.SHUTDOWN) -> None:
        """End the connection at once: send RST to the host and reset the stream with ``code``."""
        stream = self._stream
        self.aborted(code, now)
        stream.reset(code)

    def flush(self, now: float) -> None:
        """Acknowledge what has arrived, unless a segment with data has acknowledged it already."""
        if self._out.ack_due:
            self._out.acknowledge(self._sender.nxt)

    def flush_or_wait(self, now: float) -> bool:
        """Acknowledge like :meth:`flush`, or wait until an answer can carry the acknowledgement.

        Return True if it waits. The caller must then call :meth:`flush_late` after ACK_DELAY.
        """
        out = self._out
        if not out.ack_due:
            return False
        if out.wait(now):
            return True
        out.acknowledge(self._sender.nxt)
        return False

    def flush_late(self, now: float) -> float | None:
        """Send the acknowledgement if it has waited for ACK_DELAY.

        Return the time of the next call; None when no acknowledgement waits.
        """
        out = self._out
        if out.held_since is None:
            return None  # an answer has carried it
        if now - out.held_since < ACK_DELAY:
            return out.held_since + ACK_DELAY
        out.acknowledge_late(self._sender.nxt)
        return None

    # --- what the host sends ---------------------------------------------------------------------

    def plain_arrived(
        self, number: int, acknowledgement: int, window_field: int, text: memoryview, now: float
    ) -> bool | None:
        """Take a segment that has ACK, no options, and the next expected sequence number.

        Return whether :meth:`flush` has something to do. Return None if the segment must go to
        :meth:`segment_arrived`; nothing has happened in this case.
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
        window = window_field << self._negotiated.peer_shift
        if advance or not length or una + window != sender.window.edge:
            self._take_acknowledgement(advance, window, NO_BLOCKS, sequence, not length, now)
        if length:
            receiver.next = sequence + length
            # Set before sending: the answer may come at once and carry the acknowledgement.
            out.ack_due = True
            self._stream.send(text, now)
            if receiver.next - receiver.reported >= ACK_EVERY:
                out.acknowledge(sender.nxt)
        return out.ack_due

    def segment_arrived(self, segment: TcpSegment, now: float) -> bool:
        """Take any segment of this connection; return whether :meth:`flush` has something to do."""
        if segment.flags & EXAMINED_FLAGS == ACK and not segment.sack_blocks:
            is_due = self.plain_arrived(
                segment.sequence, segment.acknowledgement, segment.window, segment.payload, now
            )
            if is_due is not None:
                return is_due
        self._examine(segment, now)
        return self._out.ack_due

    def may_be_replaced_by(self, syn: TcpSegment) -> bool:
        """Return whether ``syn`` begins a new connection in place of this one (RFC 9293, 3.10.7.4)."""
        return self.state is TcpState.TIME_WAIT and seq_lt(self._receiver.next & SEQUENCE_MASK, syn.sequence)

    def _examine(self, segment: TcpSegment, now: float) -> None:
        """Examine a segment that :meth:`plain_arrived` cannot take."""
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
        """Examine a segment before the SYN is answered: a repeated SYN, a new one, or a RST."""
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
        """Answer a segment outside the window with an acknowledgement, unless it is a RST."""
        flags = segment.flags
        if sequence == self._receiver.next - 1 and length <= 1 and flags & EXAMINED_FLAGS == ACK:
            # A keep-alive, or a probe of a closed window, perhaps with one byte (RFC 9293, 3.8.4).
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
            # Our acknowledgement was probably lost, and this is a retransmission.
            self._out.acknowledge(self._sender.nxt)
            if self.state is TcpState.TIME_WAIT and flags & FIN:
                self._deadline.set(now + self._config.time_wait)
        else:
            self._out.challenge(self._sender.nxt, now)

    def _examine_acknowledgement(self, segment: TcpSegment, sequence: int, now: float) -> bool:
        """Examine the ACK field; return whether to examine the rest of the segment (RFC 5961, 5.2)."""
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
            window = segment.window << self._negotiated.peer_shift
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
        """Take an acceptable ACK field with its window and SACK blocks; see :meth:`Sender.acknowledged`."""
        sender = self._sender
        freed = sender.acknowledged(advance, window, blocks, sequence, is_bare, now)
        stream = self._stream
        if advance and sender.fin_acknowledged:
            self._our_fin_acknowledged(now)
        if freed:
            stream.consumed(freed, now)

    def _examine_text(self, segment: TcpSegment, sequence: int, now: float) -> None:
        """Examine the data and the FIN of a segment."""
        if not self._takes_text:
            self._counters.drop("tcp-after-fin")
            return
        receiver = self._receiver
        self._out.ack_due = True
        is_urgent = receiver.arrived(sequence, segment.payload, bool(segment.flags & FIN), now)
        if not self._takes_text:
            return  # the stream has ended the connection in the meantime
        if receiver.finished:
            self._their_fin_arrived(now)
        elif is_urgent:
            self._out.acknowledge(self._sender.nxt)
