"""How much the kernel may hold of a leg that it has not sent: as little as keeps the road busy.

What waits there nothing can overtake. But it must last until this process has woken up and written more: each
time it runs out, bbr takes the leg for idle and learns nothing of the road.
"""

from __future__ import annotations

import asyncio
import socket
import struct

from halftunnel_vpn.transport.kernel.bbr_restart import Recollection, begin_anew, estimate_of
from halftunnel_vpn.transport.sockets import NOTSENT_LOWAT

MAX_NOTSENT = 256 * 1024
"""Bytes that may ever wait unsent in the kernel."""

WAKE_TIME = 0.004
"""Seconds for which they last at the pace of the kernel, which wakes the sender when half are gone,"""

SHARE_OF_ROUND_TRIP = 1 / 8
"""and the part of the least round trip that they may add to what comes behind them."""

LOOK_EVERY = 0.02
"""Seconds between two looks at the rate of a leg, when something is sent on it."""

FADING = 0.75
"""Part of the last rate below which a look does not take it: losses make single samples small."""

RENEW_AFTER = 8.0
"""Seconds after which bbr is chosen again on a leg with a pace of ours, so that it never probes for the least
round trip itself: after ten seconds it would send four packets a round trip for 200 ms (PROBE_RTT). The pace
bounds the first phase, which it is then in."""

_WAITS = NOTSENT_LOWAT // 2
# Unsent bytes from which the kernel is what holds a leg up.

_NO_PACE = 1 << 40
# Bytes a second from which a pace is none: all bits are set until there is one.

LOSSY = 0.004
"""Part of the segments, sent again within LOSS_WINDOW, from which on a path loses: there records arrive late
without any queue, and congestion control alone finds the rate."""

LOSS_WINDOW = 0.5
"""Seconds over which losses are counted, at least,"""

LOSS_GRACE = 1.0
"""and seconds at a pace after which that begins: TCP overshot before."""

MIN_SEGMENTS = 100
"""Segments of such a window, at least: a few losses on a very slow path say nothing."""

_INFO = struct.Struct("=68xI28xIQ32xII4xIQ")
# struct tcp_info (linux/tcp.h): tcpi_rtt in microseconds, tcpi_total_retrans, tcpi_pacing_rate in bytes a
# second, tcpi_notsent_bytes, tcpi_min_rtt, tcpi_data_segs_out, tcpi_delivery_rate.


class UnsentBound:
    """The bound of one leg (TCP_NOTSENT_LOWAT). A look is due at ``next_look``, in seconds of its clock."""

    __slots__ = (
        "_bound",
        "_losses",
        "_rate",
        "_recollection",
        "_renew_at",
        "_transport",
        "is_lossy",
        "next_look",
        "pace",
    )

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._bound = NOTSENT_LOWAT
        self._rate = 0.0
        self._recollection = Recollection()
        self.next_look = 0.0
        self.pace = 0.0
        self._renew_at = 0.0
        self.is_lossy = False
        self._losses = (0.0, 0, 0)

    def look(self, now: float) -> None:
        """Something was written on the leg: follow the road."""
        self.next_look = now + LOOK_EVERY
        sock = self._transport.get_extra_info("socket")
        if sock is None:
            return
        try:
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
            if len(info) < _INFO.size:
                return  # a kernel before 4.9
            smoothed, repeated, pace, unsent, least, segments, rate = _INFO.unpack(info)
            self._rate = max(float(pace if pace < _NO_PACE else rate), self._rate * FADING)
            wanted = bound_for(self._rate, least / 1e6)
            if wanted >= 2 * self._bound or self._bound >= 2 * wanted:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, wanted)
                self._bound = wanted
            if self.pace:
                self._count_losses(repeated, segments, now)
                self._recollection.best = min(self._recollection.best, self.pace)
                if now >= self._renew_at:
                    self._renew_at = now + RENEW_AFTER
                    if estimate_of(sock) is not None:
                        begin_anew(sock)
            if unsent >= _WAITS:
                self._recollection.look(sock, smoothed, least)
        except OSError:
            return  # the connection is gone; whoever reads it is told

    def _count_losses(self, repeated: int, segments: int, now: float) -> None:
        since, repeated_before, segments_before = self._losses
        if not since:
            self._losses = (now + LOSS_GRACE, 0, 0)
        elif not segments_before:
            if now >= since:
                self._losses = (now, repeated, segments)
        elif now - since >= LOSS_WINDOW and segments - segments_before >= MIN_SEGMENTS:
            self.is_lossy = repeated - repeated_before > LOSSY * (segments - segments_before)
            self._losses = (now, repeated, segments)

    def forget_losses(self) -> None:
        """Begin to count with the next window."""
        self.is_lossy = False
        self._losses = (0.0, 0, 0)


def bound_for(rate: float, least_round_trip: float) -> int:
    """Bytes for a road of ``rate`` bytes a second and so many seconds of round trip without any queue."""
    seconds = min(WAKE_TIME, least_round_trip * SHARE_OF_ROUND_TRIP)
    return int(min(max(rate * seconds, NOTSENT_LOWAT), MAX_NOTSENT))
