"""Disconnecting: the host is being put back. Our own legs may leave, to say goodbye, and nothing else."""

from __future__ import annotations

from halftunnel_vpn.daemon.events import TunnelEvent
from halftunnel_vpn.daemon.states.state import Protection, State

DISCONNECTING = State(
    "disconnecting",
    Protection.with_legs,
    {
        TunnelEvent.DOWN: "disconnecting",
        TunnelEvent.STOPPED: "disconnected",
        TunnelEvent.FAILED: "disconnected",
    },
)
