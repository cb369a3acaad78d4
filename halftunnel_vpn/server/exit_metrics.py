"""The metrics of an exit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median

from halftunnel_vpn.config.server import ServerConfig
from halftunnel_vpn.host.resources import tcp_memory
from halftunnel_vpn.observe.metrics import Metrics
from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.server.exit import Exit
from halftunnel_vpn.server.exit_files import Place
from halftunnel_vpn.server.readiness import Readiness, expiries
from halftunnel_vpn.transport.listen import Listener


def add_metrics(
    metrics: Metrics,
    exit_: Exit,
    config: Callable[[], ServerConfig],
    listeners: Mapping[Place, Listener],
    readiness: Readiness,
) -> None:
    """Show the numbers of ``exit_``. ``config`` is the configuration in force."""
    registry = exit_.registry
    metrics.add_counters("exit", exit_.counters)
    metrics.add("active_sessions", lambda: len(registry))
    metrics.add("legs", lambda: {way.name.lower(): float(registry.legs[way]) for way in Direction})
    metrics.add("leg_round_trip_seconds", lambda: _round_trips(exit_))
    metrics.add("streams", lambda: exit_.nat.total)
    metrics.add("memory_bytes", lambda: exit_.memory.used)
    metrics.add("memory_limit_bytes", lambda: exit_.memory.limit)
    metrics.add("tcp_memory_bytes", tcp_memory)
    metrics.add("ready", readiness.outcomes)
    metrics.add("certificate_expiry_timestamp_seconds", lambda: expiries(config(), listeners))
    metrics.add("client_bytes_total", lambda: exit_.nat.meters.readings() if config().metrics.clients else {})


def _round_trips(exit_: Exit) -> dict[str, float]:
    """Return the median of all legs of each path that have measured one, in seconds."""
    measured: dict[str, list[float]] = {}
    for member in exit_.registry:
        for leg in member.session.legs:
            if leg.round_trip is not None:
                measured.setdefault(leg.direction.name.lower(), []).append(leg.round_trip)
    return {path: median(times) for path, times in measured.items()}
