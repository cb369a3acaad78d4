"""Connecting: the first session is being made. Our own legs may leave, and what a captive portal needs."""

from __future__ import annotations

from halftunnel_vpn.daemon.events import Happening
from halftunnel_vpn.daemon.states.state import Protection, State

CONNECTING = State(
    "connecting",
    Protection.with_portal,
    {
        Happening.UP: "connecting",
        Happening.RETRY: "connecting",
        Happening.DOWN: "disconnecting",
        Happening.ESTABLISHED: "connected",
        Happening.FAILED: "disconnected",
        Happening.BLOCKED: "blocked",
    },
)
