"""What the tunnel says of its roads, its legs and its names, in the shape of ``control/status_schema.py``."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from halftunnel_vpn.client.legs.keepers import LegInfo, describe
from halftunnel_vpn.control.status_schema import DirectionStatus, DnsStatus, LegStatus
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.session.legs import SessionLeg


def road_status(
    direction: Direction, urls: Sequence[str], legs: Sequence[SessionLeg], counters: Counters, now: float
) -> DirectionStatus:
    """One direction: its legs of now, and what all legs there ever were have carried, as last refreshed."""
    name = direction.name.lower()
    counted = counters.counted
    return DirectionStatus(
        urls=[without_path(url) for url in urls],
        legs=len(legs),
        open_legs=[leg_status(describe(leg, now)) for leg in sorted(legs, key=lambda leg: leg.number)],
        sent_bytes=counted[f"{name}-bytes-sent"],
        received_bytes=counted[f"{name}-bytes-received"],
        sent_messages=counted[f"{name}-messages-sent"],
        received_messages=counted[f"{name}-messages-received"],
    )


def without_path(url: str) -> str:
    """Return scheme, host and port of ``url``: its path is a secret, and a status is shown to others."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def leg_status(leg: LegInfo) -> LegStatus:
    """One leg."""
    return LegStatus(
        number=leg.number,
        domain=leg.domain,
        address=leg.address or None,
        round_trip=leg.round_trip,
        age=max(0.0, leg.age),
        sent_bytes=leg.bytes_sent,
        received_bytes=leg.bytes_received,
    )


def dns_status(mode: str, backend: str | None, cache_entries: int, counters: Counters) -> DnsStatus:
    """How names are resolved."""
    counted = counters.counted
    return DnsStatus(
        mode=mode,
        backend=backend,
        cache_hits=counted["dns-cache-hits"],
        cache_misses=counted["dns-cache-misses"],
        cache_entries=cache_entries,
    )
