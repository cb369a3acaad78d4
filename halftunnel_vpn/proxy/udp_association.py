"""UDP ASSOCIATE (RFC 1928 section 7): a socket for the datagrams of one program, a stream to the exit."""

from __future__ import annotations

import socket
from typing import Any

from halftunnel_vpn.errors import SessionError, UpstreamUnavailable, WireError
from halftunnel_vpn.protocol.datagram import DataRun, decode_run, encode_run_header
from halftunnel_vpn.protocol.interfaces import DatagramPort
from halftunnel_vpn.protocol.stream_messages import OpenRequest, ResetCode, StreamKind
from halftunnel_vpn.proxy.parting import has_ended
from halftunnel_vpn.proxy.proxy_context import OnClosed, ProxyContext
from halftunnel_vpn.proxy.socks import datagram_header, read_datagram
from halftunnel_vpn.transport.relay.socket_watch import HUNG_UP, READABLE

READS_PER_WAKE = 64
"""Datagrams read before other events get their turn."""

READ_SIZE = 4096
"""Bytes that are discarded at once on the TCP connection of a program."""

SOCKET_BUFFER = 1024 * 1024
"""Bytes asked of the kernel for each direction of the socket."""

LOOPBACK = "127.0.0.1"
"""The address of the socket for a program that uses a Unix socket."""


class UdpAssociation:
    """Lasts as long as the TCP connection ``control`` of the program; calls ``on_closed`` once.

    The first datagram from the program's host sets its port. Datagrams from other hosts are dropped.
    Implements DatagramHandler and ProxyConnection.
    """

    __slots__ = (
        "_context",
        "_control",
        "_host",
        "_is_closed",
        "_on_closed",
        "_program",
        "_sock",
        "_stream",
    )

    def __init__(self, control: socket.socket, context: ProxyContext, on_closed: OnClosed) -> None:
        self._control = control
        self._context = context
        self._on_closed = on_closed
        self._sock: socket.socket | None = None
        self._host = LOOPBACK
        # The address of the program's own socket, once it has sent something.
        self._program: Any = None
        self._stream: DatagramPort | None = None
        self._is_closed = False

    def open(self) -> tuple[bytes, int]:
        """Make the socket; return its address. Raises OSError."""
        control = self._control
        local = LOOPBACK
        family = socket.AF_INET
        if control.family != socket.AF_UNIX:
            family = control.family
            local, self._host = control.getsockname()[0], control.getpeername()[0]
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)
            sock.bind((local, 0))
            self._context.watch.set(sock, READABLE, self._readable)
            self._context.watch.set(control, READABLE | HUNG_UP, self._control_readable)
        except OSError:
            self._context.watch.remove(sock)
            sock.close()
            raise
        self._sock = sock
        self._context.counters.count("proxy-associations")
        packed = socket.inet_pton(family, local.partition("%")[0])
        if packed[:12] == bytes(10) + b"\xff\xff":  # an IPv4 program at a socket for both families
            packed = packed[12:]
        return packed, sock.getsockname()[1]

    def close(self) -> None:
        """End it, here and at the exit."""
        if self._is_closed:
            return
        self._is_closed = True
        for sock in (self._sock, self._control):
            if sock is not None:
                self._context.watch.forget(sock)
                sock.close()
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
        self._on_closed()

    # --- the program -----------------------------------------------------------------------------

    def _control_readable(self, sock: socket.socket, events: int) -> None:
        """Discard data on the TCP connection; its end ends the association."""
        if has_ended(sock, READ_SIZE):
            self.close()

    def _readable(self, sock: socket.socket, events: int) -> None:
        now = self._context.driver.clock()
        view = memoryview(self._context.buffer)
        for _ in range(READS_PER_WAKE):
            try:
                length, source = sock.recvfrom_into(view)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:  # an ICMP error of an earlier datagram: the program reads no more
                continue
            if source != self._program and not self._is_programs(source):
                self._context.counters.drop("proxy-udp-stranger")
                continue
            self._send(view[:length], now)

    def _is_programs(self, source: Any) -> bool:
        if self._program is None and source[0] == self._host:
            self._program = source
            return True
        return False

    def _send(self, data: memoryview, now: float) -> None:
        found = read_datagram(data)
        counters = self._context.counters
        if found is None:
            counters.drop("proxy-udp-malformed")
            return
        host, port, payload = found
        try:
            header = encode_run_header(host, port)
            stream = self._stream
            if stream is None:
                request = OpenRequest(StreamKind.UDP, b"", 0, 0)
                self._stream = stream = self._context.opener.open_datagrams(request, self, now)
        except WireError as error:
            counters.drop(error.reason)
        except (SessionError, UpstreamUnavailable):
            counters.drop("proxy-udp-no-session")
        else:
            stream.send(header, bytes(payload))

    # --- DatagramHandler -------------------------------------------------------------------------

    def run_received(self, data: memoryview, now: float) -> None:
        """Take datagrams from the Internet. An ICMP error is only counted: SOCKS cannot report it."""
        counters = self._context.counters
        try:
            run = decode_run(data)
        except WireError as error:
            counters.drop(error.reason)
            return
        if not isinstance(run, DataRun):
            counters.drop("proxy-udp-icmp-error")
            return
        sock = self._sock
        if sock is None or self._program is None:
            counters.drop("proxy-udp-no-program")
            return
        header = datagram_header(run.address, run.port)
        size = run.segment_size or len(run.data) or 1
        for start in range(0, len(run.data) or 1, size):
            try:
                sock.sendmsg((header, run.data[start : start + size]), (), 0, self._program)
            except (BlockingIOError, InterruptedError):
                counters.drop("proxy-udp-send-buffer-full")
            except OSError:
                counters.drop("proxy-udp-send-failed")

    def refused(self, code: ResetCode, now: float) -> None:
        """End it: the exit has no room for it."""
        self._context.counters.drop("proxy-udp-refused")
        self._stream = None

    def aborted(self, code: ResetCode, now: float) -> None:
        """End the stream, which the exit or the session has ended. The next datagram opens a new one."""
        self._stream = None
