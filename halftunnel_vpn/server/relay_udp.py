"""NAT egress of one UDP stream: one socket per family for one local endpoint of the client.

The socket is bound once and used for every destination, so the mapping is endpoint-independent, and what
comes in is passed on whoever sent it: endpoint-independent filtering (RFC 4787, REQ-1 and REQ-8).
"""

from __future__ import annotations

import errno
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

UDP_SEGMENT = 103
UDP_GRO = 104

READS_PER_WAKE = 32
"""Reads of one socket before other events get their turn."""

RECEIVE_SIZE = 65535
"""Bytes of the longest datagram, or of the longest run of them."""

SOCKET_BUFFER = 1024 * 1024
"""Bytes asked of the kernel for each direction of a socket: room for a burst."""

MAX_NAMES = 256
"""Names of destinations that one stream remembers, to label what comes back."""

_ANY = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}
_KINDS = {
    errno.ENETUNREACH: IcmpErrorKind.NET_UNREACHABLE,
    errno.EACCES: IcmpErrorKind.ADMIN_PROHIBITED,
    errno.EPERM: IcmpErrorKind.ADMIN_PROHIBITED,
    errno.EMSGSIZE: IcmpErrorKind.PACKET_TOO_BIG,
    errno.ECONNREFUSED: IcmpErrorKind.PORT_UNREACHABLE,
}
_SEGMENT_SIZE = struct.Struct("=H")
_GRO_SIZE = struct.Struct("=i")


class UdpRelay:
    """Moves datagrams between ``stream`` and its sockets; implements DatagramHandler.

    ``resolve`` starts to resolve a name and calls back with an address or None.
    """

    def __init__(
        self,
        stream: DatagramStream,
        driver: Driver,
        policy: EgressPolicy,
        resolve: Callable[[str, Callable[[bytes | None], None]], None],
        idle_timeout: float,
        counters: Counters,
        on_closed: Callable[[], None],
    ) -> None:
        self._stream = stream
        self._driver = driver
        self._policy = policy
        self._resolve = resolve
        self._counters = counters
        self._on_closed = on_closed
        self._idle_timeout = idle_timeout
        self._idle = driver.wheel.timer(self._check_idle)
        self._last_used = driver.clock()
        self._idle.arm(self._last_used + idle_timeout)
        self._sockets: dict[int, socket.socket] = {}
        self._hop_limits: dict[int, int] = {}
        self._addresses: dict[str, bytes] = {}
        self._names: dict[bytes, str] = {}
        self._is_closed = False

    # --- DatagramHandler -------------------------------------------------------------------------

    def run_received(self, data: memoryview, now: float) -> None:
        """Datagrams of the client."""
        self._last_used = now
        try:
            run = decode_run(data)
        except WireError as error:
            self._counters.drop(error.reason)
            return
        if isinstance(run, ErrorRun):
            self._counters.drop("datagram-unexpected-error")
        elif isinstance(run.address, str):
            self._send_to_name(run.address, run)
        else:
            self._send(run.address, run)

    def refused(self, code: ResetCode, now: float) -> None:
        """The client has forgotten the stream."""
        self._close()

    def aborted(self, code: ResetCode, now: float) -> None:
        """The client has forgotten the stream, or its session is gone."""
        self._close()

    # --- towards the Internet --------------------------------------------------------------------

    def _send_to_name(self, name: str, run: DataRun) -> None:
        address = self._addresses.get(name)
        if address is not None:
            self._send(address, run)
            return

        def resolved(found: bytes | None) -> None:
            if self._is_closed:
                return
            if found is None:
                self._counters.drop("datagram-name-not-found")
                return
            if len(self._addresses) >= MAX_NAMES:
                self._addresses.clear()
                self._names.clear()
            self._addresses[name] = found
            self._names[found] = name
            self._send(found, run)

        self._resolve(name, resolved)

    def _send(self, address: bytes, run: DataRun) -> None:
        if not self._policy.permits(address):
            self._counters.drop("egress-denied")
            self._report(IcmpErrorKind.ADMIN_PROHIBITED, b"", address, run.port)
            return
        family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
        sock = self._sockets.get(family) or self._open(family)
        if sock is None:
            self._report(IcmpErrorKind.NET_UNREACHABLE, b"", address, run.port)
            return
        if run.hop_limit and run.hop_limit != self._hop_limits[family]:
            self._set_hop_limit(sock, run.hop_limit)
        destination = (socket.inet_ntop(family, address), run.port)
        for attempt in (1, 2):
            try:
                if run.segment_size and run.segment_size < len(run.data):
                    segments = [(socket.IPPROTO_UDP, UDP_SEGMENT, _SEGMENT_SIZE.pack(run.segment_size))]
                    sock.sendmsg([run.data], segments, 0, destination)
                else:
                    sock.sendto(run.data, destination)
                return
            except BlockingIOError:
                self._counters.drop("udp-send-buffer-full")
                return
            except OSError as error:
                # an ICMP error of an earlier datagram surfaces here: read it, then send this one
                errors = icmp_errors.read(sock)
                self._pass_on(errors)
                if not errors or attempt == 2:
                    self._counters.drop("udp-send-failed")
                    if not errors:
                        self._report_failure(error, address, run.port)
                    return

    def _open(self, family: int) -> socket.socket | None:
        try:
            sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except OSError:
            self._counters.drop("udp-no-socket")
            return None
        try:
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            icmp_errors.enable(sock)
            sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
            sock.bind((_ANY[socket.AddressFamily(family)], 0))
        except OSError:
            sock.close()
            self._counters.drop("udp-no-socket")
            return None
        self._sockets[family] = sock
        self._hop_limits[family] = 0
        self._driver.loop.add_reader(sock.fileno(), self._readable, sock)
        return sock

    def _set_hop_limit(self, sock: socket.socket, hop_limit: int) -> None:
        if sock.family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hop_limit)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hop_limit)
        self._hop_limits[sock.family] = hop_limit

    # --- from the Internet -----------------------------------------------------------------------

    def _readable(self, sock: socket.socket) -> None:
        now = self._stream.session.now = self._driver.clock()
        family = sock.family
        for _ in range(READS_PER_WAKE):
            try:
                data, ancillary, _flags, source = sock.recvmsg(RECEIVE_SIZE, 64)
            except BlockingIOError:
                return
            except OSError:
                self._pass_on(icmp_errors.read(sock))
                return
            self._last_used = now
            segment_size = 0
            for level, type_, value in ancillary:
                if level == socket.IPPROTO_UDP and type_ == UDP_GRO:
                    segment_size = _GRO_SIZE.unpack_from(value)[0]
            address = socket.inet_pton(family, source[0].partition("%")[0])
            header = encode_run_header(
                self._names.get(address, address), source[1], segment_size=segment_size
            )
            self._stream.send(header, data)

    def _pass_on(self, errors: list[icmp_errors.SocketError]) -> None:
        for error in errors:
            self._report(error.kind, error.offender, error.address, error.port, error.mtu)

    def _report(self, kind: IcmpErrorKind, offender: bytes, address: bytes, port: int, mtu: int = 0) -> None:
        host = self._names.get(address, address)
        self._stream.send(encode_error(ErrorRun(kind, offender, host, port, mtu)))

    def _report_failure(self, error: OSError, address: bytes, port: int) -> None:
        kind = _KINDS.get(error.errno or 0, IcmpErrorKind.HOST_UNREACHABLE)
        self._report(kind, b"", address, port)

    # --- the end ---------------------------------------------------------------------------------

    def _check_idle(self, now: float) -> None:
        deadline = self._last_used + self._idle_timeout
        if now < deadline:
            self._idle.arm(deadline)
            return
        self._counters.count("udp-streams-idle")
        self._stream.close()
        self._close()

    def _close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._idle.cancel()
        for sock in self._sockets.values():
            self._driver.loop.remove_reader(sock.fileno())
            sock.close()
        self._sockets.clear()
        self._on_closed()
