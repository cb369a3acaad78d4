"""What each road carries each way: WebSocket payload by the client's count, and bytes on its links."""

from __future__ import annotations

from dataclasses import dataclass

from halftunnel_vpn.control import requests as control
from halftunnel_vpn.errors import HostError
from lab import Lab
from lab.topology import CLIENT, ROAD_A, ROAD_B


@dataclass(frozen=True, slots=True)
class RoadTraffic:
    """Bytes on one road, seen from the client: up is away from it."""

    payload_up: int
    payload_down: int
    wire_up: int
    wire_down: int

    def __sub__(self, earlier: RoadTraffic) -> RoadTraffic:
        return RoadTraffic(
            self.payload_up - earlier.payload_up,
            self.payload_down - earlier.payload_down,
            self.wire_up - earlier.wire_up,
            self.wire_down - earlier.wire_down,
        )


@dataclass(frozen=True, slots=True)
class Traffic:
    """Both roads."""

    a: RoadTraffic
    b: RoadTraffic

    def __sub__(self, earlier: Traffic) -> Traffic:
        return Traffic(self.a - earlier.a, self.b - earlier.b)

    @property
    def a_share_up(self) -> float:
        """Of the payload on path A, the part that went up."""
        return self.a.payload_up / max(1, self.a.payload_up + self.a.payload_down)

    @property
    def b_share_down(self) -> float:
        """Of the payload on path B, the part that came down."""
        return self.b.payload_down / max(1, self.b.payload_up + self.b.payload_down)

    @property
    def share_up(self) -> float:
        """Of the payload on both roads, the part that went up."""
        up = self.a.payload_up + self.b.payload_up
        return up / max(1, up + self.a.payload_down + self.b.payload_down)


def measure(lab: Lab, socket: str) -> Traffic:
    """The counts as they stand now. Raises HostError when the client does not answer."""
    status = control.read_status(socket)
    if status is None:
        raise HostError("the demo's client has ended; its log says why")
    return Traffic(
        _road(lab, ROAD_A, status["upstream"]),
        _road(lab, ROAD_B, status["downstream"]),
    )


def _road(lab: Lab, device: str, payload: dict[str, int]) -> RoadTraffic:
    wire = lab.counters(CLIENT, device)
    return RoadTraffic(payload["sent_bytes"], payload["received_bytes"], wire.sent_bytes, wire.received_bytes)
