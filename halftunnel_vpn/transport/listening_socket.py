"""Opens listening sockets, and drops connections that were refused."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import struct

from halftunnel_vpn.errors import HostError

ACCEPT_BACKLOG = 1024
"""Connections that the kernel keeps until they are accepted."""

EVERY_ADDRESS, EVERY_IPV4_ADDRESS = "::", "0.0.0.0"  # only where it is asked for  # nosec B104

log = logging.getLogger(__name__)


def listening_socket(address: str, port: int) -> socket.socket:
    """Listen on ``address``; without IPv6, ``::`` means every IPv4 address. Raises HostError."""
    try:
        return _bound_socket(address, port)
    except OSError as error:
        if address != EVERY_ADDRESS or error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise HostError(f"cannot listen on {address} port {port}: {_advice(error)}") from error
    log.warning("this machine has no IPv6, so %s port %d listens on %s", address, port, EVERY_IPV4_ADDRESS)
    try:
        return _bound_socket(EVERY_IPV4_ADDRESS, port)
    except OSError as error:
        raise HostError(f"cannot listen on {EVERY_IPV4_ADDRESS} port {port}: {_advice(error)}") from error


def _bound_socket(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address != EVERY_ADDRESS))
        sock.bind((address, port))
        sock.listen(ACCEPT_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def drop(connection: socket.socket) -> None:
    """Close with RST, so that the kernel keeps nothing of a connection that was refused."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def _advice(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another program has it; stop that program or choose another port"
    if error.errno == errno.EACCES:
        return "ports below 1024 need CAP_NET_BIND_SERVICE; grant it or choose a higher port"
    if error.errno == errno.EAFNOSUPPORT:
        return "this machine has no IPv6; choose an IPv4 address, or 0.0.0.0 for all of them"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address; choose one that it has, or 0.0.0.0"
    return f"{error.strerror}; choose another address or port"
