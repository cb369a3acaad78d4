"""The status of a supervisor, as ``control/status_schema.py`` describes it."""

from __future__ import annotations

import os

from halftunnel_vpn import __version__
from halftunnel_vpn.client.supervisor.machine import Machine
from halftunnel_vpn.client.supervisor.tunnel_port import TunnelPort
from halftunnel_vpn.control.status_schema import ProtectionStatus, Status
from halftunnel_vpn.counters import Counters


def status_of(
    machine: Machine,
    tunnel: TunnelPort | None,
    *,
    uptime: float,
    protection: ProtectionStatus,
    counters: Counters,
) -> Status:
    """Return the complete status. ``protection`` and ``counters`` are the supervisor's own."""
    status = _without_tunnel(machine, protection, counters) if tunnel is None else tunnel.status()
    status["state"] = machine.state.name
    status["since"] = machine.since
    status["sentence"] = machine.sentence
    status["profile"] = machine.state.target.name if machine.state.target is not None else None
    status["uptime"] = uptime
    status["protection"] = protection
    return status


def _without_tunnel(machine: Machine, protection: ProtectionStatus, counters: Counters) -> Status:
    return Status(
        version=__version__,
        state=machine.state.name,
        since=machine.since,
        sentence=machine.sentence,
        profile=None,
        pid=os.getpid(),
        uptime=0.0,
        device=None,
        session=0,
        round_trip=None,
        lost=[],
        flows={"tcp": 0, "udp": 0, "icmp": 0},
        protection=protection,
        dropped=dict(counters.dropped),
    )
