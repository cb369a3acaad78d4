"""The settings of the TCP endpoints of a client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_SHIFT: Final = 14
"""The largest window scale (RFC 7323, 2.3)."""

MAX_WINDOW_FIELD: Final = 0xFFFF


@dataclass(frozen=True, slots=True)
class TcpEndpointConfig:
    """Times are in seconds, sizes in bytes. Raises ValueError for a value that is invalid in TCP."""

    mss_v4: int = 1460
    """The MSS option of a SYN-ACK over IPv4."""
    mss_v6: int = 1440
    window_scale: int = 8
    """The shift of our own window field, if the host offers window scaling."""
    max_window: int = 16 * 1024 * 1024
    """The most bytes that one flow of the host may send ahead of the stream."""
    answer_at_once: bool = False
    """Answer a SYN before the exit has connected. A refusal then becomes a reset."""
    syn_held_timeout: float = 30.0
    """How long a SYN may wait for the exit."""
    syn_ack_retries: int = 5
    time_wait: float = 2.0
    """Short, because no segment lives long between the host's kernel and its own TUN device."""
    rto_initial: float = 1.0
    rto_min: float = 0.2
    """As in Linux. The host acknowledges at once, and nothing queues between it and us."""
    rto_max: float = 60.0
    user_timeout: float = 100.0
    """How long sent data, or a probe of a closed window, may stay without any answer."""

    def __post_init__(self) -> None:
        if not 0 <= self.window_scale <= MAX_SHIFT:
            raise ValueError(f"window_scale is {self.window_scale}; allowed are 0 to {MAX_SHIFT}")
        for name in ("mss_v4", "mss_v6"):
            if not 0 < getattr(self, name) <= MAX_WINDOW_FIELD:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed are 1 to {MAX_WINDOW_FIELD}")
        if not 0 < self.rto_min <= self.rto_initial <= self.rto_max:
            raise ValueError("rto_min, rto_initial and rto_max must rise in this order")
        if self.max_window <= 0:
            raise ValueError(f"max_window is {self.max_window}; it must be positive")
