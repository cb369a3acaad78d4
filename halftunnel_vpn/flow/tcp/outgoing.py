"""Segments to the host: their header fields, and the frames that carry them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.flow.interfaces import Buffer, FrameWriter
from halftunnel_vpn.flow.tcp.receiving import Receiver
from halftunnel_vpn.inet.tcp import (
    ACK,
    FIN,
    RST,
    SEQUENCE_MASK,
    SYN,
    HeaderTemplate,
    TcpSegment,
)

CHALLENGES: Final = 10
"""Per flow and interval: challenge ACKs, and answers to segments without text outside the window."""

CONVERSATION: Final = 3
"""Consecutive answers that make a conversation (the threshold of Linux's "pingpong" mode)."""

CHALLENGE_INTERVAL: Final = 1.0
"""Seconds between resets of the count of challenges (RFC 5961, 7)."""


class Outgoing:
    """Builds and writes the frames of one flow. Sequence numbers are given unwrapped.

    ``ack_due`` is True when data has arrived which no segment to the host has acknowledged yet. ``mss`` is
    the segment size of the host; the kernel cuts longer frames into segments of this size. ``frame_limit`` is
    the most bytes of text and options in a frame. ``held_since`` is the time since which the due
    acknowledgement waits for an answer, None while it does not wait.
    """

    __slots__ = (
        "_answered",
        "_answers",
        "_challenges",
        "_counters",
        "_interval_end",
        "_receiver",
        "_template",
        "_write",
        "ack_due",
        "frame_limit",
        "held_since",
        "mss",
    )

    def __init__(
        self, template: HeaderTemplate, write: FrameWriter, receiver: Receiver, counters: Counters
    ) -> None:
        self._template = template
        self._write = write
        self._receiver = receiver
        self._counters = counters
        self._challenges = 0
        self._interval_end = 0.0
        self._answered = 0
        self._answers = 0
        self.ack_due = False
        self.held_since: float | None = None
        self.frame_limit = 0
        self.mss = 0

    def data(self, sequence: int, flags: int, parts: Sequence[Buffer], length: int) -> None:
        """Send a segment with ``length`` bytes of text in ``parts``, or a bare FIN."""
        receiver = self._receiver
        window = receiver.window_field
        if receiver.next != self._answered:
            self._answered = receiver.next
            self._answers += 1
        if self.ack_due:
            self.ack_due = False
            self.held_since = None
            receiver.reported = receiver.next
            window = receiver.open_window()
        options = receiver.options
        if options and length + len(options) > self.frame_limit:
            # No room for them beside so much text; every duplicate acknowledgement carries them too.
            options = b""
        header = self._template.build(
            sequence & SEQUENCE_MASK,
            receiver.next & SEQUENCE_MASK,
            flags,
            window,
            length,
            self.mss - len(options),
            options,
        )
        self._write([header, *parts])

    def acknowledge(self, sequence: int) -> None:
        """Acknowledge all that has arrived, with the largest window that is possible now."""
        receiver = self._receiver
        self.ack_due = False
        self.held_since = None
        receiver.reported = receiver.next
        header = self._template.build(
            sequence & SEQUENCE_MASK,
            receiver.next & SEQUENCE_MASK,
            ACK,
            receiver.open_window(),
            0,
            0,
            receiver.options,
        )
        self._write([header])

    def wait(self, now: float) -> bool:
        """Return whether the due acknowledgement may wait, from ``now`` on, for an answer to carry it.

        It may in a conversation: several times in a row a short message has been answered (as in the delayed
        acknowledgements of Linux).
        """
        receiver = self._receiver
        arrived = receiver.next - receiver.reported
        if self._answers < CONVERSATION or not 0 < arrived < 2 * self.mss or receiver.has_gap:
            return False
        if self.held_since is None:
            self.held_since = now
        return True

    def acknowledge_late(self, sequence: int) -> None:
        """Acknowledge: no answer came in time. Count answers from zero, because the host may wait for us."""
        if self.ack_due:
            self._answers = 0
            self.acknowledge(sequence)

    def challenge(self, sequence: int, now: float) -> None:
        """Send a challenge ACK (RFC 5961), unless the limit of this interval is reached."""
        if now >= self._interval_end:
            self._interval_end = now + CHALLENGE_INTERVAL
            self._challenges = 0
        if self._challenges >= CHALLENGES:
            self._counters.drop("tcp-challenge-limit")
            return
        self._challenges += 1
        self._counters.count("tcp-challenge-acks")
        self.acknowledge(sequence)

    def synchronize(self, sequence: int, options: bytes) -> None:
        """Send the SYN-ACK."""
        receiver = self._receiver
        receiver.open_window()
        header = self._template.build(
            sequence & SEQUENCE_MASK,
            receiver.next & SEQUENCE_MASK,
            SYN | ACK,
            receiver.unscaled_window,
            0,
            0,
            options,
        )
        self._write([header])

    def reset(self, sequence: int) -> None:
        """Send a RST that the host accepts."""
        self._counters.count("tcp-resets-sent")
        acknowledgement = self._receiver.next & SEQUENCE_MASK
        header = self._template.build(sequence & SEQUENCE_MASK, acknowledgement, RST | ACK, 0, 0)
        self._write([header])

    def reset_stray(self, segment: TcpSegment) -> None:
        """Answer a segment that no connection expects with a RST."""
        self._counters.count("tcp-resets-sent")
        self._write([_reset_for(segment, self._template)])


def answer_stray(segment: TcpSegment, template: HeaderTemplate) -> bytes | None:
    """Return the frame that answers a segment without a connection (RFC 9293, 3.10.7.1).

    ``template`` builds headers towards the sender of the segment. Return None for a RST, which is never
    answered.
    """
    return None if segment.flags & RST else _reset_for(segment, template)


def _reset_for(segment: TcpSegment, template: HeaderTemplate) -> bytes:
    if segment.flags & ACK:
        return template.build(segment.acknowledgement, 0, RST, 0, 0)
    length = len(segment.payload) + bool(segment.flags & SYN) + bool(segment.flags & FIN)
    return template.build(0, (segment.sequence + length) & SEQUENCE_MASK, RST | ACK, 0, 0)
