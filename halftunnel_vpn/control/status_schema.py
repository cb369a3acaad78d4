"""What a running client says of itself at ``GET /v1/status``: one JSON object (docs/CONTROL.md)."""

from __future__ import annotations

from enum import StrEnum
from typing import NotRequired, TypedDict

STATUS_PATH = "/v1/status"
DOWN_PATH = "/v1/down"


class TunnelState(StrEnum):
    """What the tunnel of a host is doing: the ``state`` of a status and of an event."""

    DISCONNECTED = "disconnected"
    """No tunnel is wanted."""
    CONNECTING = "connecting"
    """The first session is being made."""
    CONNECTED = "connected"
    """Both directions carry data."""
    RECONNECTING = "reconnecting"
    """A direction or the session is lost; the device and the routes stay."""
    BLOCKED = "blocked"
    """A tunnel is wanted and cannot be had, and the kill switch holds."""
    DISCONNECTING = "disconnecting"
    """The host is being put back."""


class LegStatus(TypedDict):
    """One WebSocket connection that is open now. Bytes are WebSocket payload since it joined."""

    number: int
    domain: str
    """Host and port of its URL; never the path, which is a secret."""
    address: str | None
    """IP address that it is connected to (a proxy's, where there is one); None when not known."""
    round_trip: float | None
    """Seconds, last measured on this leg."""
    age: float
    """Seconds since it joined."""
    sent_bytes: int
    received_bytes: int


class RoadStatus(TypedDict):
    """One direction's road since the process began; bytes are WebSocket payload, without frames and TLS."""

    urls: list[str]
    """Scheme, host and port of each; never the path, which is a secret."""
    legs: int
    """Legs that are open now."""
    open_legs: list[LegStatus]
    """The same, one by one, by number."""
    sent_bytes: int
    """Payload that went from the client to the exit on this road."""
    received_bytes: int
    """Payload that came from the exit to the client on this road."""
    sent_messages: int
    received_messages: int


class DnsStatus(TypedDict):
    """How names are resolved."""

    mode: str
    """``forward``, ``fake-ip`` or ``off``."""
    backend: str | None
    """What points programs to the tunnel: ``resolved``, ``resolvconf`` or ``file``; None: nothing does."""
    cache_hits: int
    cache_misses: int
    cache_entries: int


class ProtectionStatus(TypedDict):
    """The kill switch."""

    kill_switch: str
    """``off``, ``on`` or ``always``."""
    active: bool
    """Whether its rules are in the kernel now."""
    verified: bool
    """Whether they were read back and are the ones that this state asks for."""
    inbound: bool
    """Whether replies to connections from outside leave outside the tunnel, kill switch or not."""


class ShapingStatus(TypedDict):
    """What observers of the paths are kept from seeing, and what that costs."""

    wanted: str
    """``off``, ``split`` or ``strong``: what the profile asks for."""
    mode: str
    """What the session has."""
    state: str
    """``off``, ``idle``, ``clock``, ``bulk`` (a bulk transfer, not hidden) or ``stepped-down``."""
    sentence: str | None
    """Why less is hidden than wanted; None when nothing is amiss."""
    bits_per_activity: float | None
    """The most that the length of one activity tells, in bits; None without shaping."""
    activities: int
    """Activities of the session so far."""
    activities_per_hour: float
    padding_bytes: int
    """Bytes of padding of both directions since the process began."""
    overhead: float
    """The same for each byte of everything else."""
    escapes: dict[str, int]
    """Records off their slot or size, by reason; ``bulk``: transfers."""
    slots: int
    slots_skipped: int
    """Slots in which no leg could be written."""


class Status(TypedDict):
    """A whole status. Readers ignore keys that they do not know."""

    version: str
    state: str
    """A word of :class:`TunnelState`."""
    since: float
    """When this state began: seconds since 1970 (UTC)."""
    sentence: str | None
    """The last failure, in one sentence; None when there was none since the last success."""
    profile: str | None
    """None while nothing is up."""
    pid: int
    uptime: float
    """Seconds since the start of the process."""
    device: str | None
    session: int
    """Number of the session in this process; the log names the same. 0 before the first."""
    round_trip: float | None
    """Seconds from a keepalive to its answer, last measured."""
    upstream: NotRequired[RoadStatus]
    """Both roads are there as soon as a profile is up."""
    downstream: NotRequired[RoadStatus]
    lost: list[str]
    """Directions without a leg now, of ``upstream`` and ``downstream``."""
    notices: NotRequired[list[str]]
    """What the user should know although the tunnel works, a sentence each."""
    flows: dict[str, int]
    """Flows now, by kind: ``tcp``, ``udp``, ``icmp``."""
    dns: NotRequired[DnsStatus]
    protection: ProtectionStatus
    shaping: NotRequired[ShapingStatus]
    dropped: dict[str, int]
    """What was dropped, by reason."""
    leftovers: NotRequired[list[str]]
    """What a client that is gone left on this host, and what to do about it; only while none runs."""
