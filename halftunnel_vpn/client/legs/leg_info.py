"""What the status says of one open leg."""

from __future__ import annotations

from dataclasses import dataclass

from halftunnel_vpn.client.legs.roads import domain_of
from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.session.legs import SessionLeg


@dataclass(frozen=True, slots=True)
class LegInfo:
    """One open leg, for the status. Times are in seconds, bytes are record bytes of this leg so far."""

    direction: Direction
    number: int
    domain: str
    """Host and port of its URL. The path is a secret."""
    address: str
    """The address that was dialled."""
    round_trip: float | None
    """None until measured."""
    age: float
    bytes_sent: int
    bytes_received: int
    draining: bool
    """Whether it was replaced. It is closed as soon as its data is acknowledged."""
    is_urgent: bool = False
    """Whether it was opened for what is urgent."""


def describe(leg: SessionLeg, now: float) -> LegInfo:
    """Return the values of ``leg`` for the status."""
    return LegInfo(
        leg.direction,
        leg.number,
        domain_of(leg.name),
        leg.address,
        leg.round_trip,
        now - leg.opened_at,
        leg.bytes_sent,
        leg.bytes_received,
        leg.draining,
        leg.is_urgent,
    )
