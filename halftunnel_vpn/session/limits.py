"""What a session is told when it is made: its bounds, and who answers for new streams at the exit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from halftunnel_vpn.protocol.interfaces import DatagramHandler, StreamHandler
from halftunnel_vpn.protocol.stream_messages import OpenRequest
from halftunnel_vpn.session.memory_budget import Memory
from halftunnel_vpn.session.receiving import MAX_WINDOW

if TYPE_CHECKING:
    from halftunnel_vpn.session.datagrams import DatagramStream
    from halftunnel_vpn.session.stream import ByteStream


class Acceptor(Protocol):
    """The exit's side of opening a stream: returns the handler, then accepts or resets the stream."""

    def stream_opened(self, stream: ByteStream, request: OpenRequest, now: float) -> StreamHandler:
        """The client wants a byte stream."""
        ...

    def datagrams_opened(self, stream: DatagramStream, request: OpenRequest, now: float) -> DatagramHandler:
        """The client wants a datagram stream."""
        ...


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
