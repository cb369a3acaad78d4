"""Reads ``struct tcp_info``: what the kernel reports of the connection of a leg."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final, NamedTuple

from halftunnel_vpn.session.legs import NO_MOVEMENT, Movement

_LAYOUT: Final = struct.Struct("=68xI28xIQ8xQQ8xII4xIQ32xQQ")
"""The part of ``struct tcp_info`` (linux/tcp.h, since Linux 4.19) that :class:`TcpInfo` has."""


class TcpInfo(NamedTuple):
    """What the kernel reports of a connection. Times are microseconds, rates bytes a second."""

    round_trip: int
    """tcpi_rtt, smoothed."""
    total_retransmissions: int
    pacing_rate: int
    bytes_acknowledged: int
    bytes_received: int
    bytes_not_sent: int
    least_round_trip: int
    """tcpi_min_rtt."""
    data_segments_out: int
    delivery_rate: int
    bytes_sent: int
    bytes_retransmitted: int


def read_tcp_info(sock: socket.socket) -> TcpInfo | None:
    """Return what the kernel reports of ``sock``; None from a kernel before 4.19. Raises OSError."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAYOUT.size)
    return None if len(info) < _LAYOUT.size else TcpInfo._make(_LAYOUT.unpack(info))


def movement_of(transport: asyncio.Transport) -> Movement:
    """Return how far the bytes of ``transport`` have come; NO_MOVEMENT if the kernel does not report it."""
    sock = transport.get_extra_info("socket")
    if sock is None:
        return NO_MOVEMENT
    try:
        info = read_tcp_info(sock)
    except OSError:
        return NO_MOVEMENT  # the connection is gone; its reader gets the error
    if info is None:
        return NO_MOVEMENT
    given = info.bytes_sent - info.bytes_retransmitted + info.bytes_not_sent
    return Movement(given + transport.get_write_buffer_size(), info.bytes_acknowledged, info.bytes_received)
