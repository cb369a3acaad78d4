"""Connected: both directions carry data. Our own legs may leave; everything else goes through the tunnel."""

from __future__ import annotations

from halftunnel_vpn.daemon.events import Happening
from halftunnel_vpn.daemon.states.state import Protection, State

CONNECTED = State(
    "connected",
    Protection.with_tunnel,
    {
        Happening.UP: "connecting",
        Happening.DOWN: "disconnecting",
        Happening.LOST: "reconnecting",
        Happening.FAILED: "disconnected",
        Happening.BLOCKED: "blocked",
    },
)
