"""Reconnecting: a direction or the session is lost; the device and the routes stay. As when connected."""

from __future__ import annotations

from halftunnel_vpn.daemon.events import TunnelEvent
from halftunnel_vpn.daemon.states.state import Protection, State

RECONNECTING = State(
    "reconnecting",
    Protection.with_tunnel,
    {
        TunnelEvent.UP: "connecting",
        TunnelEvent.DOWN: "disconnecting",
        TunnelEvent.REGAINED: "connected",
        TunnelEvent.FAILED: "disconnected",
        TunnelEvent.BLOCKED: "blocked",
    },
)
