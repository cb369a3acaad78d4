"""NAT egress of one ICMP stream: echo requests of one identifier, through unprivileged ping sockets.

A ping socket (icmp(7), since Linux 3.11) needs no capability, only a group inside net.ipv4.ping_group_range.
The kernel chooses the identifier on the wire, so the client's own never leaves the exit.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import WireError
from halftunnel_vpn.protocol.datagram import (
    DataRun,
    ErrorRun,
    IcmpErrorKind,
    decode_run,
    encode_error,
    encode_run_header,
)
from halftunnel_vpn.protocol.opening import ResetCode
from halftunnel_vpn.server import icmp_errors
from halftunnel_vpn.server.egress import EgressPolicy
from halftunnel_vpn.session.datagrams import DatagramStream
from halftunnel_vpn.transport.driver import Driver

READS_PER_WAKE = 32
"""Reads of one socket before other events get their turn."""

_ECHO = struct.Struct(">BBHHH")  # type, code, checksum, identifier, sequence (RFC 792, RFC 4443)
_REQUEST = {socket.AF_INET: 8, socket.AF_INET6: 128}
_REPLY = {socket.AF_INET: 0, socket.AF_INET6: 129}
_PROTOCOL = {socket.AF_INET: socket.IPPROTO_ICMP, socket.AF_INET6: socket.IPPROTO_ICMPV6}


class IcmpRelay:
    """Moves echo requests and replies between ``stream`` and its ping sockets; implements DatagramHandler."""

    def __init__(
        self,
        stream: DatagramStream,
        driver: Driver,
        policy: EgressPolicy,
        idle_timeout: float,
        counters: Counters,
        on_closed: Callable[[], None],
    ) -> None:
        self._stream = stream
        self._driver = driver
        self._policy = policy
        self._counters = counters
        self._on_closed = on_closed
        self._idle_timeout = idle_timeout
        self._idle = driver.wheel.timer(self._timed_out)
        self._idle.arm(driver.clock() + idle_timeout)
        self._sockets: dict[int, socket.socket] = {}

    def run_received(self, data: memoryview, now: float) -> None:
        """An echo request of the client; the run's port is the echo's sequence number."""
        self._idle.arm(now + self._idle_timeout)
        try:
            run = decode_run(data)
        except WireError as error:
            self._counters.drop(error.reason)
            return
        if not isinstance(run, DataRun) or not isinstance(run.address, bytes):
            self._counters.drop("icmp-unexpected-run")
            return
        address = run.address
        if not self._policy.permits(address):
            self._counters.drop("egress-denied")
            self._report(IcmpErrorKind.ADMIN_PROHIBITED, b"", address, run.port)
            return
        family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
        sock = self._sockets.get(family) or self._open(family)
        if sock is None:
            self._report(IcmpErrorKind.ADMIN_PROHIBITED, b"", address, run.port)
            return
        self._set_hop_limit(sock, run.hop_limit or 64)
        request = _ECHO.pack(_REQUEST[family], 0, 0, 0, run.port) + bytes(run.data)
        destination = (socket.inet_ntop(family, address), 0)
        for attempt in (1, 2):
            try:
                sock.sendto(request, destination)
                return
            except BlockingIOError:
                self._counters.drop("icmp-send-buffer-full")
                return
            except OSError:
                # an ICMP error of an earlier request surfaces here: read it, then send this one
                errors = icmp_errors.read(sock)
                self._pass_on(errors)
                if not errors or attempt == 2:
                    self._counters.drop("icmp-send-failed")
                    self._report(IcmpErrorKind.NET_UNREACHABLE, b"", address, run.port)
                    return

    def refused(self, code: ResetCode, now: float) -> None:
        """The client has forgotten the stream."""
        self._close()

    def aborted(self, code: ResetCode, now: float) -> None:
        """The client has forgotten the stream, or its session is gone."""
        self._close()

    def _open(self, family: socket.AddressFamily) -> socket.socket | None:
        flags = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        try:
            sock = socket.socket(family, flags, _PROTOCOL[family])
        except OSError:
            self._counters.drop("icmp-no-ping-socket")  # ping_group_range does not have our group
            return None
        icmp_errors.enable(sock)
        self._sockets[family] = sock
        self._driver.loop.add_reader(sock.fileno(), self._readable, sock)
        return sock

    def _set_hop_limit(self, sock: socket.socket, hop_limit: int) -> None:
        if sock.family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hop_limit)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hop_limit)

    def _readable(self, sock: socket.socket) -> None:
        now = self._stream.session.now = self._driver.clock()
        family = sock.family
        for _ in range(READS_PER_WAKE):
            try:
                message, source = sock.recvfrom(65535)
            except BlockingIOError:
                return
            except OSError:
                self._pass_on(icmp_errors.read(sock))
                return
            if len(message) < _ECHO.size or message[0] != _REPLY[socket.AddressFamily(family)]:
                self._counters.drop("icmp-unexpected-message")
                continue
            self._idle.arm(now + self._idle_timeout)
            sequence = _ECHO.unpack_from(message)[4]
            address = socket.inet_pton(family, source[0].partition("%")[0])
            self._stream.send(encode_run_header(address, sequence), memoryview(message)[_ECHO.size :])

    def _pass_on(self, errors: list[icmp_errors.SocketError]) -> None:
        for error in errors:
            if len(error.quoted) >= _ECHO.size:
                sequence = _ECHO.unpack_from(error.quoted)[4]
                self._report(error.kind, error.offender, error.address, sequence, error.mtu)

    def _report(
        self, kind: IcmpErrorKind, offender: bytes, address: bytes, sequence: int, mtu: int = 0
    ) -> None:
        self._stream.send(encode_error(ErrorRun(kind, offender, address, sequence, mtu)))

    def _timed_out(self, now: float) -> None:
        self._stream.close()
        self._close()

    def _close(self) -> None:
        self._idle.cancel()
        for sock in self._sockets.values():
            self._driver.loop.remove_reader(sock.fileno())
            sock.close()
        self._sockets.clear()
        self._on_closed()
