"""The events of the tunnel: the names in the table of transitions, and the objects that states handle."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from typing import NamedTuple

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


class Target(NamedTuple):
    """The wanted profile, its name in the store, and which of its exits may be used."""

    name: str
    profile: ClientProfile
    choice: ExitChoice = BY_PRIORITY

    def differs_in_choice_alone(self, other: Target | None) -> bool:
        """Return whether a tunnel for ``other`` need not end to become one for this target."""
        return other is not None and other._replace(choice=self.choice) == self

    def differs_beyond_protection(self, other: Target) -> bool:
        """Return whether two versions of a profile differ in more than their policies."""
        return replace(self.profile, protection=other.profile.protection) != other.profile


class Up(NamedTuple):
    """Command: connect through this target."""

    target: Target


class Down(NamedTuple):
    """Command: disconnect."""


class Reconnect(NamedTuple):
    """Command: replace every leg, or try again now."""


class OpenPortal(NamedTuple):
    """Command: a captive portal is about to be opened for this many seconds."""

    seconds: float


class ProfileChanged(NamedTuple):
    """Command: the active profile was read again. No tunnel continues with the old one."""

    target: Target


class ChoiceFailed(NamedTuple):
    """The exit of ``wanted`` could not be reached while another one is in use: ``before`` still holds."""

    wanted: Target
    before: Target


class PhaseChanged(NamedTuple):
    """The phase of the running tunnel may have changed."""


class TunnelEnded(NamedTuple):
    """The running tunnel has ended and restored the host. None: it was stopped."""

    failure: HalfTunnelError | None


class Diagnosed(NamedTuple):
    """The diagnosis whether a captive portal caused the failure. Only for the state that requested it."""

    asked_by: object
    failure: HalfTunnelError
    portal: Portal | None


class RetryDue(NamedTuple):
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
