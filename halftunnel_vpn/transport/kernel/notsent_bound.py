"""The bound on a leg's unsent bytes in the kernel: as few as keep the path busy.

Data that waits there cannot be overtaken. But it must last until this process has woken up and written more.
Each time it runs out, bbr considers the leg idle and learns nothing about the path.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

from halftunnel_vpn.transport.kernel.bbr_restart import Recollection, estimate_of, restart_bbr
from halftunnel_vpn.transport.kernel.loss import LossCount, RepeatCount
from halftunnel_vpn.transport.kernel.tcp_info import read_tcp_info
from halftunnel_vpn.transport.sockets import NOTSENT_LOWAT

MAX_NOTSENT = 256 * 1024
"""Bytes that may ever wait unsent in the kernel."""

WAKE_TIME = 0.004
"""Seconds for which they last at the pace of the kernel, which wakes the sender when half are gone,"""

SHARE_OF_ROUND_TRIP = 1 / 8
"""and the part of the least round trip that they may add to what comes behind them."""

POLL_INTERVAL = 0.02
"""The poll interval in seconds for the rate of a leg in use,"""

POLL_BYTES = 8 * 1024
"""and the bytes written since the last poll without which it is put off: pings say nothing about the rate."""

FADING = 0.75
"""Part of the last rate below which a sample does not lower it: losses make single samples small."""

RENEW_AFTER = 8.0
"""Seconds after which bbr is chosen again on a leg with a pace of ours, so that it never probes for the least
round trip itself: after ten seconds it would send four packets a round trip for 200 ms (PROBE_RTT). The pace
bounds the first phase, which it is then in."""

SLACK = 0.75
"""Part of the pace. bbr is restarted when its rate is less; otherwise it would grow by a quarter in eight
round trips."""

RENEW_EVERY = 0.25
"""Seconds between two such choices, at least."""

_WAITS = NOTSENT_LOWAT // 2
# Unsent bytes from which the kernel limits the leg.

_NO_PACE = 1 << 40
# Bytes a second from which a pace is none: all bits are set until there is one.


class UnsentBound:
    """The bound of one leg (TCP_NOTSENT_LOWAT). A check is due at ``next_check``, in seconds of its clock."""

    __slots__ = (
        "_bound",
        "_is_repeating",
        "_loses",
        "_losses",
        "_pace",
        "_rate",
        "_recollection",
        "_renewed_at",
        "_repeats",
        "_transport",
        "next_check",
        "written",
    )

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._bound = NOTSENT_LOWAT
        self._rate = 0.0
        self._recollection = Recollection()
        self.next_check = 0.0
        # Bytes that the leg has written since the last check.
        self.written = 0
        self._pace = 0.0
        self._renewed_at = 0.0
        self._losses = LossCount()
        # Whether the path has lost segments that no queue explains.
        self._loses = False
        self._repeats = RepeatCount()
        # Whether segments are sent again and again.
        self._is_repeating = False

    def check(self, now: float) -> None:
        """Update the bound if enough data was written on the leg."""
        self.next_check = now + POLL_INTERVAL
        if self.written < POLL_BYTES and not self._pace:
            return
        self.written = 0
        sock = self._transport.get_extra_info("socket")
        if sock is None:
            return
        try:
            info = read_tcp_info(sock)
            if info is None:
                return
            pace, smoothed, least = info.pacing_rate, info.round_trip, info.least_round_trip
            self._rate = max(float(pace if pace < _NO_PACE else info.delivery_rate), self._rate * FADING)
            wanted = bound_for(self._rate, least / 1e6)
            if wanted >= 2 * self._bound or self._bound >= 2 * wanted:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, wanted)
                self._bound = wanted
            if self._losses.check(
                info.total_retransmissions, info.data_segments_out, smoothed / 1e6, least / 1e6, now
            ):
                self._loses = True
            if self._repeats.check(info.total_retransmissions, info.data_segments_out, now):
                self._is_repeating = True
            if self._pace:
                self._recollection.best = min(self._recollection.best, self._pace)
                self._follow_pace(sock, now)
            if info.bytes_not_sent >= _WAITS:
                self._recollection.check(sock, smoothed, least)
        except OSError:
            return  # the connection is gone; its reader gets the error

    def losses(self) -> tuple[bool, bool]:
        """Return whether no queue explains losses, and whether there were many, since the last call."""
        losses = self._loses, self._is_repeating
        self._loses = self._is_repeating = False
        return losses

    def set_pace(self, pace: float, now: float) -> None:
        """Set the pace of the leg in bytes per second; 0 means none."""
        had_one, self._pace = self._pace > 0, pace
        self._losses.paced(pace > 0, now)
        sock = self._transport.get_extra_info("socket")
        if had_one and not pace and sock is not None:
            with contextlib.suppress(OSError):  # the connection is gone; its reader gets the error
                self._renew(sock, now)  # otherwise bbr would keep to the pace for seconds

    def _follow_pace(self, sock: socket.socket, now: float) -> None:
        """Make bbr use the pace, and never probe for the least round trip."""
        since = now - self._renewed_at
        if since < RENEW_EVERY:
            return
        estimate = estimate_of(sock)
        if estimate is None:
            return
        if since >= RENEW_AFTER or (estimate.is_steady and estimate.rate < self._pace * SLACK):
            self._renew(sock, now)

    def _renew(self, sock: socket.socket, now: float) -> None:
        self._renewed_at = now
        if estimate_of(sock) is not None:
            restart_bbr(sock)


def bound_for(rate: float, least_round_trip: float) -> int:
    """Return the bound for a path of ``rate`` bytes per second and its least round trip in seconds."""
    seconds = min(WAKE_TIME, least_round_trip * SHARE_OF_ROUND_TRIP)
    return int(min(max(rate * seconds, NOTSENT_LOWAT), MAX_NOTSENT))
