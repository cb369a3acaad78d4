"""What the daemon says of itself, as ``control/status.py`` describes it."""

from __future__ import annotations

import os

from halftunnel_vpn import __version__
from halftunnel_vpn.client.tunnel import Tunnel
from halftunnel_vpn.control.status import ProtectionStatus, Status
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.daemon.machine import Machine


def status_of(
    machine: Machine,
    tunnel: Tunnel | None,
    *,
    profile: str | None,
    uptime: float,
    protection: ProtectionStatus,
    counters: Counters,
) -> Status:
    """``profile`` is the name of the one that is wanted up, ``counters`` those of a time without a tunnel."""
    status = _without_tunnel(machine, protection, counters) if tunnel is None else tunnel.status()
    status["state"] = machine.state.name
    status["since"] = machine.since
    status["sentence"] = machine.sentence
    status["profile"] = profile
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
