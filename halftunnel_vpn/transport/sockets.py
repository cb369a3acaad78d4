"""What every TCP socket of a leg is set to, before anything is sent on it."""

from __future__ import annotations

import socket

NOTSENT_LOWAT = 128 * 1024
"""Bytes the kernel takes beyond what it has sent: more would wait there, where nothing can overtake it."""

KEEPALIVE_IDLE = 30
"""Seconds of silence before the kernel probes the peer."""

KEEPALIVE_INTERVAL = 10
"""Seconds between two probes."""

KEEPALIVE_PROBES = 3
"""Unanswered probes after which the kernel gives the connection up."""


def tune(sock: socket.socket) -> None:
    """Make ``sock`` non-blocking, send at once, queue little, and notice a peer that vanished."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_LOWAT)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
