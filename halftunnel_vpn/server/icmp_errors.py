"""ICMP errors about a socket's datagrams, read from its error queue (ip(7), IP_RECVERR)."""

from __future__ import annotations

import errno
import socket
import struct
from typing import NamedTuple

from halftunnel_vpn.icmp_error import IcmpErrorKind

IP_RECVERR = 11
IPV6_RECVERR = 25
_ORIGIN_ICMP = 2
_ORIGIN_ICMP6 = 3
_EXTENDED_ERROR = struct.Struct("=IBBBBII")  # errno, origin, type, code, pad, info, data (linux/errqueue.h)

MAX_ERRORS_PER_WAKE = 32
"""Errors read from one socket before other events get their turn."""

_QUOTE = 2048
"""Bytes of the failed datagram that are read."""

_ICMP4 = {
    (3, 0): IcmpErrorKind.NET_UNREACHABLE,
    (3, 1): IcmpErrorKind.HOST_UNREACHABLE,
    (3, 2): IcmpErrorKind.PROTOCOL_UNREACHABLE,
    (3, 3): IcmpErrorKind.PORT_UNREACHABLE,
    (3, 4): IcmpErrorKind.PACKET_TOO_BIG,
    (3, 9): IcmpErrorKind.ADMIN_PROHIBITED,
    (3, 10): IcmpErrorKind.ADMIN_PROHIBITED,
    (3, 13): IcmpErrorKind.ADMIN_PROHIBITED,
}
_ICMP6 = {
    (1, 0): IcmpErrorKind.NET_UNREACHABLE,
    (1, 1): IcmpErrorKind.ADMIN_PROHIBITED,
    (1, 3): IcmpErrorKind.HOST_UNREACHABLE,
    (1, 4): IcmpErrorKind.PORT_UNREACHABLE,
    (1, 5): IcmpErrorKind.ADMIN_PROHIBITED,
    (4, 1): IcmpErrorKind.PROTOCOL_UNREACHABLE,
}


class SocketError(NamedTuple):
    """One ICMP error: its sender, the destination, and the first bytes of the failed datagram."""

    kind: IcmpErrorKind
    offender: bytes
    address: bytes
    port: int
    mtu: int
    quoted: bytes


def enable(sock: socket.socket, *, on: bool = True) -> None:
    """Make the kernel queue ICMP errors for ``sock``, or stop it."""
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, int(on))
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, int(on))


def read(sock: socket.socket) -> list[SocketError]:
    """Return the queued errors, at most MAX_ERRORS_PER_WAKE, and remove them from the queue."""
    errors: list[SocketError] = []
    for _ in range(MAX_ERRORS_PER_WAKE):
        try:
            quoted, ancillary, _flags, address = sock.recvmsg(_QUOTE, 512, socket.MSG_ERRQUEUE)
        except OSError:
            break
        for level, type_, data in ancillary:
            if (level, type_) in _LEVELS and len(data) >= _EXTENDED_ERROR.size:
                error = _decode(sock.family, quoted, data, address)
                if error is not None:
                    errors.append(error)
    return errors


def _decode(family: int, quoted: bytes, data: bytes, address: tuple[str, int]) -> SocketError | None:
    number, origin, type_, code, _pad, info, _data = _EXTENDED_ERROR.unpack_from(data)
    if origin == _ORIGIN_ICMP:
        kind = IcmpErrorKind.TIME_EXCEEDED if type_ == 11 else _ICMP4.get((type_, code))
    elif origin == _ORIGIN_ICMP6:
        kind = {2: IcmpErrorKind.PACKET_TOO_BIG, 3: IcmpErrorKind.TIME_EXCEEDED}.get(type_)
        kind = kind or _ICMP6.get((type_, code))
    else:
        kind = IcmpErrorKind.PACKET_TOO_BIG if number == errno.EMSGSIZE else None
    if kind is None:
        return None
    mtu = min(info, 0xFFFF) if kind is IcmpErrorKind.PACKET_TOO_BIG else 0
    destination = socket.inet_pton(family, address[0].partition("%")[0])
    return SocketError(kind, _offender(data[_EXTENDED_ERROR.size :]), destination, address[1], mtu, quoted)


def _offender(sockaddr: bytes) -> bytes:
    if len(sockaddr) < 8:
        return b""
    family = struct.unpack_from("=H", sockaddr)[0]
    if family == socket.AF_INET:
        return sockaddr[4:8]
    if family == socket.AF_INET6 and len(sockaddr) >= 24:
        return sockaddr[8:24]
    return b""


_LEVELS = {(socket.IPPROTO_IP, IP_RECVERR), (socket.IPPROTO_IPV6, IPV6_RECVERR)}
