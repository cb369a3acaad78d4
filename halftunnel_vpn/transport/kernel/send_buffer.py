"""The congestion control and the send buffer of a leg in the kernel.

A leg carries many flows, so it must not slow down at every packet that a radio link loses, as cubic does:
with 1 % loss at 50 ms cubic reaches 3 Mbit/s. bbr (Cardwell and others, 2016) uses the rate that arrives.
"""

from __future__ import annotations

import functools
import logging
import socket

from halftunnel_vpn.config.shared import SYSTEM_CONGESTION

SEND_BUFFER = 16 * 1024 * 1024
"""Bytes that the kernel may keep of a leg, sent and unsent, with its own cost of keeping them.

It lets two thirds of that be under way before it wakes the sender. The 4 MiB to which it goes by itself hold
200 Mbit/s at 50 ms, but bbr wants 2.9 times as much under way in its first second, to see that no more
arrives, and what has arrived behind a loss stays in the buffer too. Short of that bbr takes the sender for
idle and stays in that phase, which fills every queue. How much is under way is bounded by receipts."""

_SO_SNDBUFFORCE = 32  # CAP_NET_ADMIN; Python has no name for it

log = logging.getLogger(__name__)


def prepare(sock: socket.socket, congestion: str) -> bool:
    """Make ``sock``, not connected yet, send as a leg should; what is accepted from a listener inherits it.

    Goes on with the system's where the kernel does not have or allow what is asked for; returns whether it
    did allow the congestion control.
    """
    _enlarge(sock)
    if congestion == SYSTEM_CONGESTION:
        return True
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
    except OSError as error:
        log.debug("the congestion control %s cannot be used here: %s", congestion, error.strerror)
        return False
    return True


def _enlarge(sock: socket.socket) -> None:
    """Raise the bound of the send buffer to SEND_BUFFER, or leave it to the kernel, which goes to 4 MiB."""
    half = SEND_BUFFER // 2  # the kernel doubles the value
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, half)
    except OSError:  # not permitted, or no such option in this sandbox
        if _may_have(half):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, half)


@functools.cache
def _may_have(half: int) -> bool:
    """Whether net.core.wmem_max allows ``half``; a socket of its own finds out, since /proc may be hidden."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, half)
        return probe.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) >= 2 * half
