"""What a running client says of itself at ``GET /v1/status``: one JSON object of this shape."""

from __future__ import annotations

from typing import TypedDict

STATUS_PATH = "/v1/status"
DOWN_PATH = "/v1/down"


class RoadStatus(TypedDict):
    """One direction's road since the process began; bytes are WebSocket payload, without frames and TLS."""

    urls: list[str]
    legs: int
    """Legs that are open now."""
    sent_bytes: int
    """Payload that went from the client to the exit on this road."""
    received_bytes: int
    """Payload that came from the exit to the client on this road."""
    sent_messages: int
    received_messages: int


class Status(TypedDict):
    """A whole status. Readers ignore keys that they do not know."""

    version: str
    state: str
    """``connecting``, ``connected``, ``reconnecting`` or ``disconnecting``."""
    profile: str
    pid: int
    uptime: float
    """Seconds since the start of the process."""
    device: str
    session: int
    """Number of the session in this process; the log names the same."""
    round_trip: float | None
    """Seconds from a keepalive to its answer, last measured."""
    upstream: RoadStatus
    downstream: RoadStatus
    flows: dict[str, int]
    """Flows now, by kind: ``tcp``, ``udp``, ``icmp``."""
    dropped: dict[str, int]
    """What was dropped, by reason."""
