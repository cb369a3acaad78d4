"""A TCP stream between its OPEN and the connected socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from halftunnel_vpn.protocol.stream_messages import ResetCode
from halftunnel_vpn.server.dialing import Dial
from halftunnel_vpn.session.byte_stream import ByteStream
from halftunnel_vpn.transport.driver import Driver
from halftunnel_vpn.transport.relay.meter import Meter
from halftunnel_vpn.transport.relay.socket_watch import SocketWatch
from halftunnel_vpn.transport.relay.tcp_relay import TcpRelay
from halftunnel_vpn.transport.relay.write_backlog import Backlog, keep


class TcpOpening:
    """Keeps the client's data until the dial has ended. Then a TcpRelay takes over.

    The stream's window bounds the data. ``on_closed`` is called when the opening or the relay ends.
    Implements StreamHandler.
    """

    __slots__ = (
        "_early",
        "_finished",
        "_meter",
        "_on_closed",
        "_stream",
        "_watch",
        "driver",
        "is_over",
        "lookup",
        "pending",
        "trace",
    )

    def __init__(
        self,
        stream: ByteStream,
        driver: Driver,
        watch: SocketWatch,
        meter: Meter,
        on_closed: Callable[[], None],
    ) -> None:
        self.driver = driver
        self.pending: Dial | None = None
        self.lookup: asyncio.Task[None] | None = None
        self.is_over = False
        self._stream = stream
        self.trace = stream.trace
        self._watch = watch
        self._meter = meter
        self._on_closed = on_closed
        self._early: Backlog = []
        self._finished = False

    def connected(self, sock: socket.socket) -> None:
        """Start the relay: the destination is connected."""
        stream = self._stream
        now = self.driver.clock()
        stream.accept(*_own_address(sock))
        counters = stream.context.counters
        relay = TcpRelay(stream, sock, self.driver, self._watch, counters, self._on_closed, self._meter)
        stream.handler = relay
        self.pending = self.lookup = None
        for data in self._early:
            relay.data_received(memoryview(data), now)
        if self._finished:
            relay.finished(now)

    def failed(self, code: ResetCode) -> None:
        """Refuse the stream: the destination cannot be reached."""
        if self.is_over:
            return
        self.is_over = True
        self._stream.reset(code, b"" if self.pending is None else self.pending.offender)
        self._on_closed()

    def opened(self, now: float) -> None:
        """Never called at the exit."""

    def refused(self, code: ResetCode, now: float) -> None:
        """Cancel the dial: the client has reset the stream, or its session has ended."""
        self.aborted(code, now)

    def data_received(self, data: memoryview, now: float) -> None:
        """Keep data that arrives before the connection."""
        keep(self._early, data)

    def finished(self, now: float) -> None:
        """Keep a FIN that arrives before the connection."""
        self._finished = True

    def aborted(self, code: ResetCode, now: float) -> None:
        """Cancel the dial: the client has reset the stream, or its session has ended."""
        self.is_over = True
        if self.pending is not None:
            self.pending.cancel()
        if self.lookup is not None:
            self.lookup.cancel()
        self._on_closed()

    def room_grew(self, now: float) -> None:
        """Do nothing: there is no data to send yet."""


def _own_address(sock: socket.socket) -> tuple[bytes, int]:
    """Return address and port of our end of ``sock``."""
    host, port = sock.getsockname()[:2]
    if ":" in host:  # asking the socket for its family would look for a member of an enumeration
        return socket.inet_pton(socket.AF_INET6, host.partition("%")[0]), port
    return socket.inet_aton(host), port
