"""Connected: both directions carry data. Our own legs may leave; everything else goes through the tunnel."""

from __future__ import annotations

from halftunnel_vpn.daemon.events import TunnelEvent
from halftunnel_vpn.daemon.states.state import Protection, State

CONNECTED = State(
    "connected",
    Protection.with_tunnel,
    {
        TunnelEvent.UP: "connecting",
        TunnelEvent.DOWN: "disconnecting",
        TunnelEvent.LOST: "reconnecting",
        TunnelEvent.FAILED: "disconnected",
        TunnelEvent.BLOCKED: "blocked",
    },
)
