"""The bounds of a session."""

from __future__ import annotations

from halftunnel_vpn.session.memory_budget import Memory
from halftunnel_vpn.session.receive_side import MAX_WINDOW


class SessionLimits:
    """Bounds of one session; the defaults are the client's. ``memory`` may be shared."""

    __slots__ = ("keepalive", "max_streams", "memory", "stream_window", "window_pool")

    def __init__(
        self,
        *,
        max_streams: int = 65536,
        window_pool: int = 64 * 1024 * 1024,
        stream_window: int = MAX_WINDOW,
        keepalive: float = 8.0,
        memory: Memory | None = None,
    ) -> None:
        self.max_streams = max_streams
        self.window_pool = window_pool
        self.stream_window = stream_window
        self.keepalive = keepalive
        self.memory = memory
