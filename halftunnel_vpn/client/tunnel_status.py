"""The tunnel's paths, legs and names for the status, as ``control/status_schema.py`` describes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from halftunnel_vpn.client.legs.circuit_breaker import Breaker
from halftunnel_vpn.client.legs.keepers import LegInfo, describe
from halftunnel_vpn.control.status_schema import DirectionStatus, DnsStatus, LegStatus
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.session.legs import SessionLeg


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
