"""NAT egress of one UDP stream.

One bound socket is used for every destination, so the mapping is endpoint-independent. Datagrams are accepted
from any sender: endpoint-independent filtering (RFC 4787, REQ-1 and REQ-8).
"""

from __future__ import annotations

import errno
import socket
import struct

from halftunnel_vpn.protocol.datagram import DataRun
from halftunnel_vpn.protocol.wire import Buffer
from halftunnel_vpn.server import icmp_errors
from halftunnel_vpn.server.datagram_batch import UDP_GRO, Received
from halftunnel_vpn.server.relay_datagrams import DatagramRelay
from halftunnel_vpn.transport.kernel.scheduling import give_way

UDP_SEGMENT = 103

SOCKET_BUFFER = 1024 * 1024
"""Requested buffer size in bytes for each direction of a socket: room for a burst."""

_FLAGS = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
_ANY = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}  # a client's own mapping  # nosec B104
_NOT_SEGMENTED = {errno.EMSGSIZE, errno.EINVAL, errno.EIO}
"""Errors if the kernel cannot segment: beyond the MTU of the path, or without checksum offload."""

_SEGMENT_SIZE = struct.Struct("=H")


class UdpRelay(DatagramRelay):
    """One local endpoint of the client. Runs use the kernel's segmentation offload in both directions."""

    label = "udp"
    joins = True

    def _make_socket(self, family: socket.AddressFamily) -> socket.socket:
        sock = socket.socket(family, _FLAGS)
        try:
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
            sock.bind((_ANY[family], 0))
        except OSError:
            sock.close()
            raise
        return sock

    def _transmit(self, sock: socket.socket, family: int, run: DataRun, address: str) -> None:
        data, size, destination = run.data, run.segment_size, (address, run.port)
        if not size or len(data) <= size:
            sock.sendto(data, destination)
            return
        segmented = [(socket.IPPROTO_UDP, UDP_SEGMENT, _SEGMENT_SIZE.pack(size))]
        try:
            sock.sendmsg((data,), segmented, 0, destination)
            give_way()  # a socket has room for about a hundred datagrams, so its reader needs a turn
        except OSError as error:
            if error.errno not in _NOT_SEGMENTED:
                raise
            for start in range(0, len(data), size):
                sock.sendto(data[start : start + size], destination)

    def _understand(self, family: int, received: Received) -> tuple[int, Buffer]:
        return received[1], received[2]

    def _port_of(self, error: icmp_errors.SocketError) -> int:
        return error.port
