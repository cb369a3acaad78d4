"""Reconnecting: a direction or the session is lost; the device and the routes stay. As when connected."""

from __future__ import annotations

from halftunnel_vpn.daemon.events import Happening
from halftunnel_vpn.daemon.states.state import Protection, State

RECONNECTING = State(
    "reconnecting",
    Protection.with_tunnel,
    {
        Happening.UP: "connecting",
        Happening.DOWN: "disconnecting",
        Happening.REGAINED: "connected",
        Happening.FAILED: "disconnected",
        Happening.BLOCKED: "blocked",
    },
)
