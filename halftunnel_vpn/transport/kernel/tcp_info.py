"""How far the kernel has brought the bytes of a leg, whether or not they make whole records."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final

from halftunnel_vpn.session.legs import NO_MOVEMENT, Movement

_INFO: Final = struct.Struct("=120xQQ8xI52xQQ")
# struct tcp_info (linux/tcp.h): tcpi_bytes_acked, tcpi_bytes_received, tcpi_notsent_bytes, tcpi_bytes_sent,
# tcpi_bytes_retrans.


def movement_of(transport: asyncio.Transport) -> Movement:
    """What the kernel tells of the connection of ``transport``; NO_MOVEMENT where it tells nothing."""
    sock = transport.get_extra_info("socket")
    if sock is None:
        return NO_MOVEMENT
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
    except OSError:
        return NO_MOVEMENT  # the connection is gone; whoever reads it is told
    if len(info) < _INFO.size:
        return NO_MOVEMENT  # a kernel before 4.19
    acknowledged, received, unsent, sent, repeated = _INFO.unpack(info)
    given = sent - repeated + unsent + transport.get_write_buffer_size()
    return Movement(given, acknowledged, received)
