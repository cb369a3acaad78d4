"""Blocked: a tunnel is wanted and cannot be had. Our own legs may leave, and what a captive portal needs."""

from __future__ import annotations

from halftunnel_vpn.daemon.events import TunnelEvent
from halftunnel_vpn.daemon.states.state import Protection, State

BLOCKED = State(
    "blocked",
    Protection.with_portal,
    {
        TunnelEvent.UP: "connecting",
        TunnelEvent.RETRY: "connecting",
        TunnelEvent.DOWN: "disconnecting",
    },
)
