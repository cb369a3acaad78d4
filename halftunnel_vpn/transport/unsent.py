"""How much the kernel may hold of a leg that it has not sent: as little as keeps the road busy.

What waits there nothing can overtake. But it must last until this process has woken up and written more: each
time it runs out, bbr takes the leg for idle and learns nothing of the road.
"""

from __future__ import annotations

import asyncio
import socket
import struct

from halftunnel_vpn.transport.sockets import NOTSENT_LOWAT

MAX_NOTSENT = 256 * 1024
"""Bytes that may ever wait unsent in the kernel."""

WAKE_TIME = 0.004
"""Seconds for which they last at the rate of the road,"""

SHARE_OF_ROUND_TRIP = 1 / 8
"""and the part of the least round trip that they may add to what comes behind them."""

LOOK_EVERY = 512 * 1024
"""Bytes written on a leg between two looks at its rate."""

FADING = 0.75
"""Part of the last rate below which a look does not take it: losses make single samples small."""

_RATES = struct.Struct("=148xI8xQ")
# struct tcp_info (linux/tcp.h): tcpi_min_rtt in microseconds, tcpi_delivery_rate in bytes a second.


class UnsentBound:
    """The bound of one leg (TCP_NOTSENT_LOWAT). ``next_look`` is due when so many bytes were written."""

    __slots__ = ("_bound", "_rate", "_transport", "next_look")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._bound = NOTSENT_LOWAT
        self._rate = 0.0
        self.next_look = LOOK_EVERY

    def look(self, written: int) -> None:
        """``written`` bytes were written on the leg so far: follow the road."""
        self.next_look = written + LOOK_EVERY
        sock = self._transport.get_extra_info("socket")
        if sock is None:
            return
        try:
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RATES.size)
            if len(info) < _RATES.size:
                return  # a kernel before 4.9
            microseconds, rate = _RATES.unpack(info)
            self._rate = max(float(rate), self._rate * FADING)
            wanted = bound_for(self._rate, microseconds / 1e6)
            if wanted >= 2 * self._bound or self._bound >= 2 * wanted:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, wanted)
                self._bound = wanted
        except OSError:
            return  # the connection is gone; whoever reads it is told


def bound_for(rate: float, least_round_trip: float) -> int:
    """Bytes for a road of ``rate`` bytes a second and so many seconds of round trip without any queue."""
    seconds = min(WAKE_TIME, least_round_trip * SHARE_OF_ROUND_TRIP)
    return int(min(max(rate * seconds, NOTSENT_LOWAT), MAX_NOTSENT))
