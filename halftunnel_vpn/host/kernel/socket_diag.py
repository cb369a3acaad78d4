"""The sockets of this network namespace, as the kernel lists them (sock_diag(7)).

pyroute2 decodes every attribute of every socket. A host may have ten thousands, so this module reads the
few fields that are needed.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from halftunnel_vpn.errors import HostError

MAX_SOCKETS: Final = 32_768
"""Sockets of one kind that are read. Flows of further ones have no known program."""

ANSWER_TIMEOUT: Final = 5.0
"""Seconds that the kernel may take for one part of its answer."""

_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_DUMP: Final = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_INET_DIAG_INFO: Final = 2
_READ_SIZE: Final = 256 * 1024
_ALL_STATES: Final = 0xFFF
_OPEN_STATES: Final = _ALL_STATES & ~(1 << 6 | 1 << 10 | 1 << 3)  # TIME_WAIT, LISTEN, SYN_RECV

_HEADER: Final = struct.Struct("=IHHII")
_REQUEST: Final = struct.Struct("=BBBxI48x")
"""``struct inet_diag_req_v2``: family, protocol, wanted attributes, states."""
_MESSAGE: Final = struct.Struct("=BBBB4s16s16sI8xIIIII")
"""``struct inet_diag_msg``: family, state, ..., ports, local and remote address, ..., user, inode."""
_ATTRIBUTE: Final = struct.Struct("=HH")
_BYTES: Final = struct.Struct("=120xQQ")
"""tcpi_bytes_acked and tcpi_bytes_received of ``struct tcp_info``."""
_MAPPED: Final = bytes(10) + b"\xff\xff"


class SocketEntry(NamedTuple):
    """One socket. Addresses have 4 or 16 bytes; a mapped IPv4 address has 4."""

    local: bytes
    port: int
    remote: bytes
    remote_port: int
    user: int
    inode: int
    sent: int | None
    """Bytes that the other end has acknowledged; None except for TCP."""
    received: int | None


def sockets(protocol: int) -> Iterator[SocketEntry]:
    """Yield the sockets of ``protocol`` (IPPROTO_TCP without listeners, or IPPROTO_UDP). Raises HostError."""
    wanted = 1 << (_INET_DIAG_INFO - 1) if protocol == socket.IPPROTO_TCP else 0
    states = _OPEN_STATES if protocol == socket.IPPROTO_TCP else _ALL_STATES
    left = MAX_SOCKETS
    try:
        with socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG
        ) as link:
            link.settimeout(ANSWER_TIMEOUT)
            for family in (socket.AF_INET, socket.AF_INET6):
                request = _REQUEST.pack(family, protocol, wanted, states)
                length = _HEADER.size + len(request)
                link.sendto(_HEADER.pack(length, _SOCK_DIAG_BY_FAMILY, _DUMP, 0, 0) + request, (0, 0))
                for body in _dump(link):
                    if left:  # the rest of a dump must be read, or the next answer would begin with it
                        left -= 1
                        yield _entry(body)
    except OSError as error:
        raise HostError(f"the kernel does not list its sockets: {error.strerror or error}") from error


def _dump(link: socket.socket) -> Iterator[memoryview]:
    """Yield the bodies of the messages of one dump. Raises OSError."""
    while True:
        data = memoryview(link.recv(_READ_SIZE))
        while len(data) >= _HEADER.size:
            length, kind, *_ = _HEADER.unpack_from(data)
            if kind == _NLMSG_DONE:
                return
            if kind == _NLMSG_ERROR:
                number = -struct.unpack_from("=i", data, _HEADER.size)[0]
                raise OSError(number, "sock_diag refuses the request")
            if length < _HEADER.size:
                raise OSError(0, "a message of sock_diag is too short")
            if kind == _SOCK_DIAG_BY_FAMILY and length >= _HEADER.size + _MESSAGE.size:
                yield data[_HEADER.size : length]
            data = data[(length + 3) & ~3 :]


def _entry(body: memoryview) -> SocketEntry:
    family, _, _, _, ports, local, remote, _, _, _, _, user, inode = _MESSAGE.unpack_from(body)
    sent = received = None
    rest = body[_MESSAGE.size :]
    while len(rest) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(rest)
        if length < _ATTRIBUTE.size:
            break
        if kind == _INET_DIAG_INFO and length >= _ATTRIBUTE.size + _BYTES.size:
            sent, received = _BYTES.unpack_from(rest, _ATTRIBUTE.size)
        rest = rest[(length + 3) & ~3 :]
    return SocketEntry(
        _address(family, local),
        int.from_bytes(ports[:2], "big"),
        _address(family, remote),
        int.from_bytes(ports[2:], "big"),
        user,
        inode,
        sent,
        received,
    )


def _address(family: int, raw: bytes) -> bytes:
    if family == socket.AF_INET:
        return raw[:4]
    return raw[12:] if raw.startswith(_MAPPED) else raw
