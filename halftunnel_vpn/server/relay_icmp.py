"""NAT egress of one ICMP stream: echo requests of one identifier, through unprivileged ping sockets.

A ping socket (icmp(7), since Linux 3.11) needs no capability, only a group within net.ipv4.ping_group_range.
The kernel chooses the identifier on the wire, so the client's own never leaves the exit.
"""

from __future__ import annotations

import socket
import struct

from halftunnel_vpn.protocol.datagram import DataRun
from halftunnel_vpn.protocol.wire import Buffer
from halftunnel_vpn.server import icmp_errors
from halftunnel_vpn.server.datagram_batch import Received
from halftunnel_vpn.server.relay_datagrams import DatagramRelay

_FLAGS = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
_ECHO = struct.Struct(">BBHHH")  # type, code, checksum, identifier, sequence (RFC 792, RFC 4443)
_REQUEST: dict[int, int] = {socket.AF_INET: 8, socket.AF_INET6: 128}
_REPLY: dict[int, int] = {socket.AF_INET: 0, socket.AF_INET6: 129}
_PROTOCOL = {socket.AF_INET: socket.IPPROTO_ICMP, socket.AF_INET6: socket.IPPROTO_ICMPV6}


class IcmpRelay(DatagramRelay):
    """The echo requests of one program. The port field of a run carries the sequence number of the echo."""

    label = "icmp"
    joins = False

    def _make_socket(self, family: socket.AddressFamily) -> socket.socket:
        return socket.socket(family, _FLAGS, _PROTOCOL[family])

    def _transmit(self, sock: socket.socket, family: int, run: DataRun, address: str) -> None:
        # The kernel fills in the identifier and the checksum.
        header = _ECHO.pack(_REQUEST[family], 0, 0, 0, run.port)
        sock.sendmsg((header, run.data), (), 0, (address, 0))

    def _understand(self, family: int, received: Received) -> tuple[int, Buffer] | None:
        message = received[2]
        if len(message) < _ECHO.size or message[0] != _REPLY[family]:
            self._counters.drop("icmp-unexpected-message")
            return None
        return _ECHO.unpack_from(message)[4], memoryview(message)[_ECHO.size :]

    def _port_of(self, error: icmp_errors.SocketError) -> int | None:
        if len(error.quoted) < _ECHO.size:
            return None
        return int(_ECHO.unpack_from(error.quoted)[4])
