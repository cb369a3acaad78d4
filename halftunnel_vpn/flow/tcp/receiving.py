"""The receive side: what has arrived from the host, what it may still send, what to acknowledge.

Sequence numbers are unwrapped. An advertised window stays valid, even when ``stream.room`` shrinks because
memory is short. In-order data within the window goes to the stream at once. Only out-of-order data waits
here.
"""

from __future__ import annotations

from typing import Final

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.flow.interfaces import StreamPort
from halftunnel_vpn.flow.tcp.endpoint_config import MAX_WINDOW_FIELD
from halftunnel_vpn.flow.tcp.reassembly import Reassembly
from halftunnel_vpn.inet.tcp import SEQUENCE_MASK, encode_options

ACK_EVERY: Final = 256 * 1024
"""Bytes of in-order data that are acknowledged at once, before the end of the batch."""


class Receiver:
    """``next`` is RCV.NXT. ``edge`` is the right edge of the window, which never moves back.

    ``window_field`` is the 16-bit field to send with ``next``. The field is rounded down, but everything up
    to ``edge`` is accepted (RFC 7323, 2.4). ``reported`` is the ``next`` of the last segment to the host.
    ``options`` holds the encoded SACK blocks to report. ``has_gap`` is True when data or the FIN has arrived
    out of order.
    """

    __slots__ = (
        "_counters",
        "_fin_at",
        "_held",
        "_largest",
        "_limit",
        "_mss",
        "_sack",
        "_shift",
        "edge",
        "finished",
        "has_gap",
        "next",
        "options",
        "reported",
        "stream",
        "window_field",
    )

    def __init__(self, stream: StreamPort, counters: Counters) -> None:
        self.stream = stream
        self.next = 0
        self.edge = 0
        self.reported = 0
        self.window_field = 0
        self.options = b""
        self.has_gap = False
        self.finished = False
        self._counters = counters
        self._fin_at = -1
        self._held: Reassembly | None = None
        self._largest = 0
        self._limit = 0
        self._mss = 0
        self._shift = 0
        self._sack = False

    def start(self, next_sequence: int, mss: int, shift: int, max_window: int, *, sack: bool) -> None:
        """Begin with the values of the SYN: sequence number, MSS, shift of our window field, SACK."""
        self.next = self.edge = self.reported = next_sequence
        self._mss = mss
        self._shift = shift
        self._limit = min(max_window, MAX_WINDOW_FIELD << shift)
        self._sack = sack

    # --- the window ------------------------------------------------------------------------------

    def open_window(self) -> int:
        """Move the right edge as far as the stream has room; return the new ``window_field``.

        Small steps are saved up (RFC 9293, 3.8.6.2.2).
        """
        window = self.stream.room
        if window > self._limit:
            window = self._limit
        if window > self._largest:
            self._largest = window
        growth = self.next + window - self.edge
        if growth > 0 and (growth >= self._mss or 2 * growth >= self._largest):
            self.edge += growth
        self.window_field = field = (self.edge - self.next) >> self._shift
        return field

    @property
    def unscaled_window(self) -> int:
        """Return the window field of a segment with SYN, which is never scaled (RFC 7323, 2.2)."""
        return min(self.edge - self.next, MAX_WINDOW_FIELD)

    def update_is_due(self) -> bool:
        """Return whether the window has grown so much that the host needs a window update."""
        window = min(self.stream.room, self._limit)
        left = self.edge - self.next
        growth = window - left
        return 2 * left <= window and growth > 0 and (growth >= self._mss or 2 * growth >= self._largest)

    # --- arrival ---------------------------------------------------------------------------------

    def accepts(self, sequence: int, length: int) -> bool:
        """Return whether a segment of ``length`` (FIN counted) touches the window (RFC 9293, 3.4).

        A segment at ``next`` always does: a closed window accepts no data, but acknowledgements and the FIN.
        """
        if sequence == self.next:
            return True
        if length == 0:
            return self.next < sequence < self.edge
        return sequence < self.edge and sequence + length > self.next

    def arrived(self, sequence: int, payload: memoryview, fin: bool, now: float) -> bool:
        """Take the text of an acceptable segment; return whether to acknowledge it at once.

        It must be acknowledged at once while there are gaps (RFC 5681, 4.2). Sets ``finished`` when the FIN
        and all data before it have arrived.
        """
        end = sequence + len(payload)
        if end > self.edge:
            self._counters.drop("tcp-beyond-window")
            payload = payload[: self.edge - end]
            end = self.edge
            fin = False
        if fin and self._fin_at < 0:
            self._fin_at = end
        if 0 <= self._fin_at < end:
            self._counters.drop("tcp-after-fin")
            payload = payload[: max(self._fin_at - sequence, 0)]
        if sequence < self.next:
            payload = payload[self.next - sequence :]
            sequence = self.next
        is_urgent = self.has_gap or sequence > self.next
        if payload:
            if sequence > self.next:
                self._hold(sequence, payload)
            else:
                self._deliver(payload, now)
        if self.next == self._fin_at:
            self.next += 1
            self.edge = max(self.edge, self.next)
            self.finished = True
            self.release()
        elif self._fin_at >= 0:
            self.has_gap = True
        return is_urgent

    def release(self) -> None:
        """Drop everything that is kept."""
        self._held = None
        self.has_gap = False
        self.options = b""

    def _hold(self, sequence: int, payload: memoryview) -> None:
        if self._held is None:
            self._held = Reassembly()
        if self._held.insert(sequence, payload):
            self.has_gap = True
            self.options = self._report()
        else:
            self._counters.drop("tcp-reassembly-full")

    def _deliver(self, payload: memoryview, now: float) -> None:
        """Pass on ``payload`` and the out-of-order data that follows it."""
        self.next += len(payload)
        self.stream.send(payload, now)
        if self._held:
            for part in self._held.take(self.next):
                self.next += len(part)
                self.stream.send(part, now)
            self.has_gap = bool(self._held)
            self.options = self._report()

    def _report(self) -> bytes:
        if not self._sack or not self._held:
            return b""
        blocks = [(start & SEQUENCE_MASK, end & SEQUENCE_MASK) for start, end in self._held.report()]
        return encode_options(sack_blocks=blocks)
