"""Remembers the rate that bbr had found on a leg's path, and restarts bbr when it has lost it.

bbr (net/ipv4/tcp_bbr.c) uses the greatest rate of the last ten round trips. Samples of times with too little
data do not count, but after a loss bbr does not notice that there was too little. So after a pause its only
sample may be a tenth of the rate of the path. From there bbr tries a quarter more every eight round trips,
which takes seconds on a long path. Its first phase doubles the rate in each round trip and finds it in a few
of them. A socket that sets bbr again is in that phase.
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

FORGOTTEN = 0.6
"""Part of the best known rate below which bbr has lost the rate."""

NEAR = 1.125
"""A round trip within this factor of the least finds no queue: more could be sent."""

LOSS_OF_FAITH = 0.5
"""The part of the best rate that is kept after each restart: the path may have become slower."""

_TCP_CC_INFO = 26  # linux/tcp.h; Python has no name for it
_MAX_NAME = 16  # TCP_CA_NAME_MAX
_RENO = b"reno"  # every kernel has it, and lets everybody use it
_BBR_INFO = struct.Struct("=IIIII")
# struct tcp_bbr_info (linux/inet_diag.h): bbr_bw_lo and _hi in bytes a second, bbr_min_rtt, bbr_pacing_gain,
# bbr_cwnd_gain in 1/256.
_STEADY_GAIN = 512
# of the window, only in the phase PROBE_BW: twice the capacity of the path.


class Estimate(NamedTuple):
    """bbr's: bytes a second, and whether it has ended its first phase and is not measuring the round trip."""

    rate: int
    is_steady: bool


class Recollection:
    """The best rate that one leg has had, in bytes a second."""

    __slots__ = ("best",)

    def __init__(self) -> None:
        self.best = 0.0

    def check(self, sock: socket.socket, round_trip: int, least_round_trip: int) -> None:
        """Restart bbr on ``sock`` if it has lost its rate. Round trips: microseconds. Raises OSError."""
        estimate = estimate_of(sock)
        if self.has_forgotten(estimate, round_trip, least_round_trip):
            self.doubt()
            restart_bbr(sock)
        else:
            self.remember(estimate)

    def has_forgotten(self, estimate: Estimate | None, round_trip: int, least_round_trip: int) -> bool:
        """Return whether bbr uses much less than the rate it had, without a reason on the path."""
        if estimate is None or not estimate.is_steady:
            return False
        return estimate.rate < self.best * FORGOTTEN and round_trip <= least_round_trip * NEAR

    def remember(self, estimate: Estimate | None) -> None:
        """Remember a steady estimate as the rate of the path, if it is the best one."""
        if estimate is not None and estimate.is_steady:
            self.best = max(self.best, float(estimate.rate))

    def doubt(self) -> None:
        """Lower the remembered rate, so that a slower path causes only a few restarts."""
        self.best *= LOSS_OF_FAITH


def estimate_of(sock: socket.socket) -> Estimate | None:
    """Return bbr's estimate for ``sock``; None with another congestion control. Raises OSError."""
    info = sock.getsockopt(socket.IPPROTO_TCP, _TCP_CC_INFO, _BBR_INFO.size)
    if len(info) < _BBR_INFO.size:  # vegas and dctcp report less, most others nothing
        return None
    low, high, _, _, window_gain = _BBR_INFO.unpack(info)
    return Estimate(high << 32 | low, window_gain == _STEADY_GAIN)


def restart_bbr(sock: socket.socket) -> None:
    """Put bbr on ``sock`` into its first phase. Raises OSError.

    What is under way stays so, and the window. It has a name of its own where a kernel has more than one, and
    was allowed for this socket, so it is again.
    """
    name = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, _MAX_NAME)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, _RENO)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name)
