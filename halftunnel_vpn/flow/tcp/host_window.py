"""The window that the host advertises for what we send to it (RFC 9293, 3.8.6)."""

from __future__ import annotations

from typing import Final

NEVER: Final = -1
"""A value that is no sequence number."""


class HostWindow:
    """``edge`` is the right edge of the window. ``size`` is its size in bytes as last advertised."""

    __slots__ = ("_from", "_largest", "edge", "size")

    def __init__(self, edge: int) -> None:
        self.edge = edge
        self.size = 0
        # The largest size ever advertised.
        self._largest = 0
        # Sequence number of the segment that advertised the window last.
        self._from = NEVER

    def start(self, edge: int, size: int, sequence: int) -> None:
        """Set the window that the handshake has advertised."""
        self.edge = edge
        self.size = self._largest = size
        self._from = sequence

    def update(self, edge: int, size: int, sequence: int, *, advanced: bool) -> None:
        """Take the window of an acceptable segment, unless the segment is older than the last one.

        ``advanced`` is True when the segment acknowledges new data.
        """
        if advanced or sequence > self._from or (sequence == self._from and (edge > self.edge or not size)):
            # Of two equal segments the one with the larger window is later: windows do not shrink (RFC 9293,
            # 3.8.6).
            self.edge = edge
            self._from = sequence
            if size > self._largest:
                self._largest = size
        self.size = size

    def worth_sending(self, allowance: int, mss: int) -> int:
        """Return how many bytes of a scarce ``allowance`` are worth sending (RFC 9293, 3.8.6.2.1)."""
        if allowance >= mss:
            return allowance - allowance % mss
        return allowance if 2 * allowance >= self._largest else 0
