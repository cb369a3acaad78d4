"""How fast the kernel sends on a leg: its congestion control.

What carries many flows must not fall back at every packet that a radio link loses, as cubic does: 1 % lost at
50 ms leaves it 3 Mbit/s. bbr (Cardwell and others, 2016) goes by the rate that arrives.
"""

from __future__ import annotations

import logging
import socket

from halftunnel_vpn.config.shared import SYSTEM_CONGESTION

log = logging.getLogger(__name__)


def prepare(sock: socket.socket, congestion: str) -> bool:
    """Make ``sock``, not connected yet, send as a leg should; what is accepted from a listener inherits it.

    Goes on with the system's where the kernel does not have or allow what is asked for; returns whether it
    did allow the congestion control.
    """
    if congestion == SYSTEM_CONGESTION:
        return True
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
    except OSError as error:
        log.debug("the congestion control %s cannot be used here: %s", congestion, error.strerror)
        return False
    return True
