"""Disconnected: no tunnel is wanted. Everything may leave, unless the kill switch is ``always``."""

from __future__ import annotations

from halftunnel_vpn.daemon.events import TunnelEvent
from halftunnel_vpn.daemon.states.state import Protection, State

DISCONNECTED = State(
    "disconnected",
    Protection.locked,
    {
        TunnelEvent.UP: "connecting",
        TunnelEvent.DOWN: "disconnected",
    },
)
