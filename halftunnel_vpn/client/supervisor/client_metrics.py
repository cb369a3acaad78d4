"""The metrics of a client, in the daemon and in the foreground."""

from __future__ import annotations

from halftunnel_vpn.client.supervisor.supervisor import Supervisor
from halftunnel_vpn.client.tunnel_numbers import add_numbers
from halftunnel_vpn.control.status_schema import TunnelState
from halftunnel_vpn.observe.metrics import Metrics


def add_metrics(metrics: Metrics, component: str, supervisor: Supervisor) -> None:
    """Show the numbers of ``supervisor``; ``component`` names its counters."""
    metrics.add_counters(component, supervisor.counters)
    add_numbers(metrics, supervisor.numbers)
    metrics.add("tunnel_state", lambda: _states(supervisor.machine.state.name))
    metrics.add("kill_switch_active", lambda: float(supervisor.status()["protection"]["active"]))


async def problems(supervisor: Supervisor) -> list[str]:
    """Return what keeps the tunnel from carrying traffic, for ``/readyz``."""
    if supervisor.is_ready:
        return []
    sentence = supervisor.machine.sentence
    return [f"tunnel: {supervisor.machine.state.name}"] + ([sentence] if sentence is not None else [])


def _states(now: TunnelState) -> dict[str, float]:
    return {state.value: float(state is now) for state in TunnelState}
