"""How much may be under way: a policy per flow.

The host itself is a function call away: its receive window is all the control its flows need, and slow
start would only cost time. A peer beyond the host (gateway mode) is reached over a real network.
"""

from __future__ import annotations

from typing import Final, Protocol

UNBOUNDED: Final = 1 << 62
"""A window larger than any that TCP can have open."""

FULL_FRAME: Final = 0xFFFF

INITIAL_SEGMENTS: Final = 10
"""Segments in the initial window (RFC 6928)."""

INITIAL_BYTES: Final = 14600
"""The initial window of larger segments, but never less than two of them (RFC 6928)."""


class CongestionControl(Protocol):
    """What the sender asks and tells. All sizes in bytes.

    ``window`` is how much may be in the network. ``burst`` is how much of what is outstanding to send again
    when all that is known is that its first byte was lost.
    """

    @property
    def window(self) -> int: ...

    @property
    def burst(self) -> int: ...

    def started(self, mss: int) -> None:
        """The connection sends segments of up to ``mss`` bytes."""
        ...

    def acknowledged(self, count: int, in_flight: int) -> None:
        """``count`` new bytes of ``in_flight`` have arrived; not called during fast recovery."""
        ...

    def lost(self, in_flight: int) -> None:
        """Fast recovery begins with ``in_flight`` bytes outstanding."""
        ...

    def timed_out(self, in_flight: int, again: bool) -> None:
        """The retransmission timer has run out; ``again`` when it had for the same data before."""
        ...

    def idle(self) -> None:
        """Sending begins after a pause longer than the retransmission timeout."""
        ...


class Unlimited:
    """For peers on this host: only their receive window counts."""

    __slots__ = ()

    window: Final = UNBOUNDED
    burst: Final = FULL_FRAME

    def started(self, mss: int) -> None:
        """Nothing to know."""

    def acknowledged(self, count: int, in_flight: int) -> None:
        """Nothing to open."""

    def lost(self, in_flight: int) -> None:
        """Frames get lost between us and the kernel when a queue is full, not a road."""

    def timed_out(self, in_flight: int, again: bool) -> None:
        """The sender itself waits for a sign of life before it goes on."""

    def idle(self) -> None:
        """Nothing to forget."""


UNLIMITED: Final = Unlimited()
"""One for all: it remembers nothing."""


class NewReno:
    """For forwarded peers: slow start and congestion avoidance (RFC 5681), beginning with RFC 6928.

    The window grows by the bytes that were acknowledged, not by the acknowledgements (RFC 3465 without its
    limit L: behind segmentation offload one acknowledgement often covers 64 KB, and a window that is cut
    into frames of 64 KB gains nothing from counting in pairs of segments).
    """

    __slots__ = ("_credit", "_mss", "_threshold", "window")

    def __init__(self) -> None:
        self._mss = 0
        self._threshold = UNBOUNDED
        self._credit = 0
        self.window = 0

    @property
    def burst(self) -> int:
        """One segment (RFC 5681, 3.2)."""
        return self._mss

    def started(self, mss: int) -> None:
        """Open the initial window."""
        self._mss = mss
        self.window = self._initial_window()

    def acknowledged(self, count: int, in_flight: int) -> None:
        """Grow by ``count`` below the threshold, by one segment per window above it."""
        if in_flight + self._mss < self.window:
            return  # the window was not what held the sender back: it proves nothing (RFC 7661, 4.3)
        if self.window < self._threshold:
            self.window = min(self.window + count, self._threshold)
            return
        self._credit += count
        if self._credit >= self.window:
            self._credit -= self.window
            self.window += self._mss

    def lost(self, in_flight: int) -> None:
        """Halve (RFC 5681, equation 4)."""
        self._threshold = self.window = max(in_flight // 2, 2 * self._mss)
        self._credit = 0

    def timed_out(self, in_flight: int, again: bool) -> None:
        """Begin again with one segment (RFC 5681, 3.1)."""
        if not again:
            self._threshold = max(in_flight // 2, 2 * self._mss)
        self.window = self._mss
        self._credit = 0

    def idle(self) -> None:
        """Back to the initial window at the most (RFC 5681, 4.1)."""
        self.window = min(self.window, self._initial_window())

    def _initial_window(self) -> int:
        return min(INITIAL_SEGMENTS * self._mss, max(2 * self._mss, INITIAL_BYTES))
