"""What can happen to the tunnel: the words of the table of transitions, and the events that states handle."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from halftunnel_vpn.client.supervisor.captive_portal import Portal
from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.errors import HalfTunnelError


class TunnelEvent(Enum):
    """Why one state follows another."""

    UP = "up"
    """Somebody wants a tunnel, or another one."""
    DOWN = "down"
    """Somebody wants none any more."""
    RETRY = "retry"
    """The time has come to try again."""
    ESTABLISHED = "established"
    """There is a session, and the host's traffic goes into the tunnel."""
    LOST = "lost"
    """A direction has no leg, or there is no session."""
    REGAINED = "regained"
    """Both directions have legs again."""
    FAILED = "failed"
    """The tunnel is over, and nothing forbids the host to go on without."""
    BLOCKED = "blocked"
    """The tunnel is over, and the kill switch forbids the host to go on without."""
    STOPPED = "stopped"
    """Everything is put back."""


@dataclass(frozen=True, slots=True)
class Target:
    """The profile that is wanted up, and its name in the store."""

    name: str
    profile: ClientProfile


@dataclass(frozen=True, slots=True)
class Up:
    """Command: connect through this target."""

    target: Target


@dataclass(frozen=True, slots=True)
class Down:
    """Command: disconnect."""


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Command: replace every leg, or try again now."""


@dataclass(frozen=True, slots=True)
class OpenPortal:
    """Command: what a captive portal needs is about to be opened, for this many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class ProfileChanged:
    """Command: the active profile was read again, and no tunnel goes on with the old one."""

    target: Target


@dataclass(frozen=True, slots=True)
class PhaseChanged:
    """The running tunnel's phase may be another one now."""


@dataclass(frozen=True, slots=True)
class TunnelEnded:
    """The running tunnel is over and has put everything back; None: it was told to stop."""

    failure: HalfTunnelError | None


@dataclass(frozen=True, slots=True)
class Diagnosed:
    """It is known whether a captive portal is why the tunnel failed. For the state that asked alone."""

    asked_by: object
    failure: HalfTunnelError
    portal: Portal | None


@dataclass(frozen=True, slots=True)
class RetryDue:
    """The pause between two attempts is over. For the state that asked alone."""

    asked_by: object


Event = (
    Up | Down | Reconnect | OpenPortal | ProfileChanged | PhaseChanged | TunnelEnded | Diagnosed | RetryDue
)
