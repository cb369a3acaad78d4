"""The status of a running client, ``GET /v1/status``: one JSON object (docs/CONTROL.md)."""

from __future__ import annotations

from enum import StrEnum
from typing import NotRequired, TypedDict

STATUS_PATH = "/v1/status"
DOWN_PATH = "/v1/down"


class TunnelState(StrEnum):
    """The state of the tunnel of a host: the ``state`` of a status and of an event."""

    DISCONNECTED = "disconnected"
    """No tunnel is wanted."""
    CONNECTING = "connecting"
    """The first session is being set up."""
    CONNECTED = "connected"
    """Both directions carry data."""
    RECONNECTING = "reconnecting"
    """A direction or the session is lost. The device and the routes stay."""
    BLOCKED = "blocked"
    """A tunnel is wanted but not possible, and the kill switch holds."""
    DISCONNECTING = "disconnecting"
    """The host is being restored."""


class ExitState(StrEnum):
    """The ``state`` of an exit of the profile."""

    IN_USE = "in use"
    """The session is with this one."""
    READY = "ready"
    """It answered the last time it was tried."""
    UNREACHABLE = "unreachable"
    """It did not answer the last time."""
    UNKNOWN = "unknown"
    """It was not tried since the tunnel is up."""


class ExitOverview(TypedDict):
    """One exit of the profile."""

    name: str
    state: str
    """A value of :class:`ExitState`."""
    round_trip: float | None
    """Seconds of a WebSocket handshake over both paths, when last measured; None if never."""
    sentence: str | None
    """Why it is unreachable; None if it is not."""


class LegStatus(TypedDict):
    """One open WebSocket connection. Bytes are WebSocket payload since it joined."""

    number: int
    domain: str
    """Host and port of its URL. The path is a secret and never shown."""
    address: str | None
    """The connected IP address (that of a proxy, if there is one); None if unknown."""
    round_trip: float | None
    """The last round-trip time on this leg in seconds."""
    age: float
    """Seconds since it joined."""
    sent_bytes: int
    received_bytes: int
    urgent: bool
    """Whether it was opened for what is urgent, because the path loses."""


class DirectionStatus(TypedDict):
    """One direction since the process began. Bytes are WebSocket payload, without frames and TLS."""

    urls: list[str]
    """Scheme, host and port of each URL. The paths are secret and never shown."""
    circuits: list[str]
    """For each of ``urls``: ``closed`` (it works), ``open`` (it failed) or ``half-open`` (being tried)."""
    legs: int
    """The number of open legs."""
    open_legs: list[LegStatus]
    """The open legs, by number."""
    sent_bytes: int
    """Payload bytes from the client to the exit on this path."""
    received_bytes: int
    """Payload bytes from the exit to the client on this path."""
    sent_messages: int
    received_messages: int


class DnsStatus(TypedDict):
    """How names are resolved."""

    mode: str
    """``forward``, ``fake-ip`` or ``off``."""
    backend: str | None
    """How programs are configured for the tunnel: ``resolved``, ``resolvconf`` or ``file``; None if not."""
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
    """Whether the rules were read back and are those of this state."""
    inbound: bool
    """Whether replies to connections from outside leave outside the tunnel, with or without kill switch."""


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
    """The most that the length of one activity reveals, in bits; None without shaping."""
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
    """A complete status. Readers must ignore unknown keys."""

    version: str
    state: str
    """A value of :class:`TunnelState`."""
    since: float
    """When this state began: seconds since 1970 (UTC)."""
    sentence: str | None
    """The last failure, in one sentence; None if there was none since the last success."""
    profile: str | None
    """None while nothing is up."""
    pid: int
    uptime: float
    """Seconds since the start of the process."""
    device: str | None
    exit: NotRequired[str | None]
    """The name of the exit in use; None without a session."""
    exits: NotRequired[list[ExitOverview]]
    """All exits of the profile, the preferred one first."""
    session: int
    """The number of the session in this process, as in the log; 0 before the first session."""
    round_trip: float | None
    """The last measured seconds from a keepalive to its answer."""
    upstream: NotRequired[DirectionStatus]
    """Both directions, as soon as a profile is up."""
    downstream: NotRequired[DirectionStatus]
    lost: list[str]
    """Directions without a leg at present: ``upstream``, ``downstream``."""
    notices: NotRequired[list[str]]
    """Notices for the user although the tunnel works, a sentence each."""
    flows: dict[str, int]
    """The number of flows by kind: ``tcp``, ``udp``, ``icmp``."""
    dns: NotRequired[DnsStatus]
    protection: ProtectionStatus
    shaping: NotRequired[ShapingStatus]
    dropped: dict[str, int]
    """The number of drops by reason."""
    leftovers: NotRequired[list[str]]
    """What an earlier client left on this host, and what to do about it. Only set while no client runs."""
