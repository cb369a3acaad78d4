"""Congestion control: how many bytes may be in flight. Each flow has one policy.

Segments to the host itself cross no network, so its receive window is control enough, and slow start would
only cost time. A peer beyond the host (gateway mode) is reached over a real network.
"""

from __future__ import annotations

from typing import Final, Protocol

UNBOUNDED: Final = 1 << 62
"""A window larger than any window of TCP."""

FULL_FRAME: Final = 0xFFFF

INITIAL_SEGMENTS: Final = 10
"""Segments in the initial window (RFC 6928)."""

INITIAL_BYTES: Final = 14600
"""The initial window of larger segments, but never less than two of them (RFC 6928)."""


class CongestionControl(Protocol):
    """What the sender asks of a policy, and the events that it reports. All sizes are in bytes.

    ``window`` is how many bytes may be in the network. ``burst`` is how many outstanding bytes to send again
    when only the loss of the first one is known.
    """

    @property
    def window(self) -> int: ...

    @property
    def burst(self) -> int: ...

    def started(self, mss: int) -> None:
        """The connection begins; its segments have up to ``mss`` bytes."""
        ...

    def acknowledged(self, count: int, in_flight: int) -> None:
        """``count`` of ``in_flight`` outstanding bytes are acknowledged. Not called in fast recovery."""
        ...

    def lost(self, in_flight: int) -> None:
        """Fast recovery begins with ``in_flight`` bytes outstanding."""
        ...

    def timed_out(self, in_flight: int, again: bool) -> None:
        """The retransmission timer has expired; ``again``: for the second time with the same data."""
        ...

    def idle(self) -> None:
        """Sending begins again after a pause longer than the retransmission timeout."""
        ...


class Unlimited:
    """The policy for peers on this host: only their receive window limits the sender."""

    __slots__ = ()

    window: Final = UNBOUNDED
    burst: Final = FULL_FRAME

    def started(self, mss: int) -> None:
        """Do nothing: the window has no size to set."""

    def acknowledged(self, count: int, in_flight: int) -> None:
        """Do nothing: the window cannot grow."""

    def lost(self, in_flight: int) -> None:
        """Do nothing: between us and the kernel a full queue loses frames, not a network."""

    def timed_out(self, in_flight: int, again: bool) -> None:
        """Do nothing: the sender itself waits for an answer before it goes on."""

    def idle(self) -> None:
        """Do nothing: the window never shrinks."""


UNLIMITED: Final = Unlimited()
"""One instance for all connections; it has no state."""


class NewReno:
    """The policy for forwarded peers: slow start and congestion avoidance (RFC 5681, RFC 6928).

    The window grows by the number of acknowledged bytes, not of acknowledgements (RFC 3465 without its limit
    L). With segmentation offload one acknowledgement often covers 64 KB, and the window is sent in frames of
    64 KB. Counting in pairs of segments would gain nothing there.
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
        """Grow by ``count`` bytes below the threshold, and by one segment per window above it."""
        if in_flight + self._mss < self.window:
            return  # the window did not limit the sender, so this proves nothing about it (RFC 7661, 4.3)
        if self.window < self._threshold:
            self.window = min(self.window + count, self._threshold)
            return
        self._credit += count
        if self._credit >= self.window:
            self._credit -= self.window
            self.window += self._mss

    def lost(self, in_flight: int) -> None:
        """Halve the window (RFC 5681, equation 4)."""
        self._threshold = self.window = max(in_flight // 2, 2 * self._mss)
        self._credit = 0

    def timed_out(self, in_flight: int, again: bool) -> None:
        """Start again with one segment (RFC 5681, 3.1)."""
        if not again:
            self._threshold = max(in_flight // 2, 2 * self._mss)
        self.window = self._mss
        self._credit = 0

    def idle(self) -> None:
        """Shrink the window to the initial one if it is larger (RFC 5681, 4.1)."""
        self.window = min(self.window, self._initial_window())

    def _initial_window(self) -> int:
        return min(INITIAL_SEGMENTS * self._mss, max(2 * self._mss, INITIAL_BYTES))
