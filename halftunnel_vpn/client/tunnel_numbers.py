"""What the metrics say of a tunnel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from halftunnel_vpn.client.legs.circuit_breaker import Circuit
from halftunnel_vpn.client.legs.roads import Roads, domain_of
from halftunnel_vpn.observe.metrics import Metrics
from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.session.legs import SessionLeg


class TunnelNumbers(NamedTuple):
    """Numbers of now. The keys of ``legs`` and ``round_trips`` are paths."""

    flows: Mapping[str, float]
    """By kind."""
    sessions: int
    legs: Mapping[str, float]
    round_trips: Mapping[str, float]
    """Seconds, the median of the legs that have measured one."""
    circuits: Mapping[tuple[str, ...], float]
    """By path, domain and state; 1 for the state that a circuit is in."""


NOTHING = TunnelNumbers({}, 0, {}, {}, {})
"""Without a tunnel."""


def numbers_of(
    flows: Mapping[str, int], legs_of: Callable[[Direction], Sequence[SessionLeg]] | None, roads: Roads
) -> TunnelNumbers:
    """Return the numbers of a tunnel. ``legs_of`` are the legs of its session, None while it has none."""
    from statistics import median  # a start need not wait for it

    legs: dict[str, float] = {}
    round_trips: dict[str, float] = {}
    for direction in Direction:
        path = direction.name.lower()
        found = legs_of(direction) if legs_of is not None else []
        legs[path] = len(found)
        measured = [leg.round_trip for leg in found if leg.round_trip is not None]
        if measured:
            round_trips[path] = median(measured)
    circuits: dict[tuple[str, ...], float] = {}
    for direction, breakers in roads.breakers.items():
        for url, breaker in breakers.items():
            for circuit in Circuit:
                key = (direction.name.lower(), domain_of(url), circuit.value)
                # Several URLs may have one domain: the worst of them counts.
                circuits[key] = max(circuits.get(key, 0.0), float(breaker.circuit is circuit))
    return TunnelNumbers(flows, int(legs_of is not None), legs, round_trips, circuits)


def add_numbers(metrics: Metrics, read: Callable[[], TunnelNumbers]) -> None:
    """Show the numbers that ``read`` returns."""
    metrics.add("flows", lambda: read().flows)
    metrics.add("active_sessions", lambda: read().sessions)
    metrics.add("legs", lambda: read().legs)
    metrics.add("leg_round_trip_seconds", lambda: read().round_trips)
    metrics.add("circuit_state", lambda: read().circuits)
