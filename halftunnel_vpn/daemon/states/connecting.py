"""Connecting: the first session is being made. Our own legs may leave, and what a captive portal needs."""

from __future__ import annotations

from halftunnel_vpn.daemon.events import TunnelEvent
from halftunnel_vpn.daemon.states.state import Protection, State

CONNECTING = State(
    "connecting",
    Protection.with_portal,
    {
        TunnelEvent.UP: "connecting",
        TunnelEvent.RETRY: "connecting",
        TunnelEvent.DOWN: "disconnecting",
        TunnelEvent.ESTABLISHED: "connected",
        TunnelEvent.FAILED: "disconnected",
        TunnelEvent.BLOCKED: "blocked",
    },
)
