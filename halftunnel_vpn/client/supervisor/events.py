"""The events of the tunnel: the names in the table of transitions, and the objects that states handle."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from halftunnel_vpn.client.exits.exit_ranking import BY_PRIORITY, ExitChoice
from halftunnel_vpn.client.supervisor.captive_portal import Portal
from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.errors import HalfTunnelError


class TunnelEvent(Enum):
    """Why one state follows another."""

    UP = "up"
    """A tunnel, or another one, is wanted."""
    DOWN = "down"
    """No tunnel is wanted."""
    RETRY = "retry"
    """It is time for the next attempt."""
    ESTABLISHED = "established"
    """There is a session, and the host's traffic uses the tunnel."""
    LOST = "lost"
    """A direction has no leg, or there is no session."""
    REGAINED = "regained"
    """Both directions have legs again."""
    FAILED = "failed"
    """The tunnel has ended, and no kill switch is on."""
    BLOCKED = "blocked"
    """The tunnel has ended, and the kill switch holds."""
    STOPPED = "stopped"
    """The host is restored."""


@dataclass(frozen=True, slots=True)
class Target:
    """The wanted profile, its name in the store, and which of its exits may be used."""

    name: str
    profile: ClientProfile
    choice: ExitChoice = BY_PRIORITY

    def differs_in_choice_alone(self, other: Target | None) -> bool:
        """Return whether a tunnel for ``other`` need not end to become one for this target."""
        return other is not None and replace(other, choice=self.choice) == self

    def differs_beyond_protection(self, other: Target) -> bool:
        """Return whether two versions of a profile differ in more than their policies."""
        return replace(self.profile, protection=other.profile.protection) != other.profile


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
    """Command: a captive portal is about to be opened for this many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class ProfileChanged:
    """Command: the active profile was read again. No tunnel continues with the old one."""

    target: Target


@dataclass(frozen=True, slots=True)
class ChoiceFailed:
    """The exit of ``wanted`` could not be reached while another one is in use: ``before`` still holds."""

    wanted: Target
    before: Target


@dataclass(frozen=True, slots=True)
class PhaseChanged:
    """The phase of the running tunnel may have changed."""


@dataclass(frozen=True, slots=True)
class TunnelEnded:
    """The running tunnel has ended and restored the host. None: it was stopped."""

    failure: HalfTunnelError | None


@dataclass(frozen=True, slots=True)
class Diagnosed:
    """The diagnosis whether a captive portal caused the failure. Only for the state that requested it."""

    asked_by: object
    failure: HalfTunnelError
    portal: Portal | None


@dataclass(frozen=True, slots=True)
class RetryDue:
    """The pause between two attempts is over. Only for the state that requested it."""

    asked_by: object


Event = (
    Up
    | Down
    | Reconnect
    | OpenPortal
    | ProfileChanged
    | ChoiceFailed
    | PhaseChanged
    | TunnelEnded
    | Diagnosed
    | RetryDue
)
