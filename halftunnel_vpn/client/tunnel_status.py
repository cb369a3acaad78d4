"""The tunnel's paths, legs and names for the status, as ``control/status_schema.py`` describes them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from halftunnel_vpn import __version__
from halftunnel_vpn.client.exits.exit_link import ExitLink
from halftunnel_vpn.client.legs.circuit_breaker import Breaker
from halftunnel_vpn.client.legs.leg_info import LegInfo, describe
from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.control.status_schema import (
    DirectionStatus,
    DnsStatus,
    LegStatus,
    ProtectionStatus,
    Status,
    TunnelState,
)
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.session.legs import SessionLeg


def tunnel_status(
    profile: ClientProfile, link: ExitLink, counters: Counters, state: TunnelState, now: float
) -> Status:
    """Return the status of a tunnel as far as its connection decides it. Without the kill switch."""
    connection = link.connection
    session = connection.session
    connector = link.exits.current
    roads = {
        direction: road_status(
            direction,
            connector.roads.breakers[direction],
            session.legs_of(direction) if session is not None else [],
            counters,
            now,
        )
        for direction in Direction
    }
    return Status(
        version=__version__,
        state=state,
        since=0.0,
        sentence=None,
        profile=profile.name,
        pid=os.getpid(),
        uptime=0.0,
        device=profile.tun.name,
        exit=link.exits.ranking.in_use if session is not None else None,
        exits=link.statuses(),
        session=connection.session_number,
        round_trip=session.round_trip if session is not None else None,
        upstream=roads[Direction.UPSTREAM],
        downstream=roads[Direction.DOWNSTREAM],
        lost=[direction.name.lower() for direction in connection.lost_directions],
        notices=[*connector.clock.notices, *connection.refusals],
        flows={},
        protection=ProtectionStatus(
            kill_switch="off", active=False, verified=False, inbound=profile.routes.inbound
        ),
        shaping=connection.shaping.status(session, now),
        dropped=dict(counters.dropped),
    )


def road_status(
    direction: Direction,
    breakers: Mapping[str, Breaker],
    legs: Sequence[SessionLeg],
    counters: Counters,
    now: float,
) -> DirectionStatus:
    """Return one direction: its present legs, and the traffic of all legs so far, as last refreshed.

    ``breakers`` are the circuits of its URLs.
    """
    name = direction.name.lower()
    counted = counters.counted
    return DirectionStatus(
        urls=[without_path(url) for url in breakers],
        circuits=[breaker.circuit.value for breaker in breakers.values()],
        legs=len(legs),
        open_legs=[leg_status(describe(leg, now)) for leg in sorted(legs, key=lambda leg: leg.number)],
        sent_bytes=counted[f"{name}-bytes-sent"],
        received_bytes=counted[f"{name}-bytes-received"],
        sent_messages=counted[f"{name}-messages-sent"],
        received_messages=counted[f"{name}-messages-received"],
    )


def without_path(url: str) -> str:
    """Return scheme, host and port of ``url``. Its path is a secret and must not be shown."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def leg_status(leg: LegInfo) -> LegStatus:
    """Return one leg."""
    return LegStatus(
        number=leg.number,
        domain=leg.domain,
        address=leg.address or None,
        round_trip=leg.round_trip,
        age=max(0.0, leg.age),
        sent_bytes=leg.bytes_sent,
        received_bytes=leg.bytes_received,
        urgent=leg.is_urgent,
    )


def dns_status(mode: str, backend: str | None, cache_entries: int, counters: Counters) -> DnsStatus:
    """Return how names are resolved."""
    counted = counters.counted
    return DnsStatus(
        mode=mode,
        backend=backend,
        cache_hits=counted["dns-cache-hits"],
        cache_misses=counted["dns-cache-misses"],
        cache_entries=cache_entries,
    )
