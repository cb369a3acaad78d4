"""What a command says about the exits of a profile, checked against the profile."""

from __future__ import annotations

import asyncio

from halftunnel_vpn.client.exits.exit_ranking import BY_PRIORITY, ExitChoice
from halftunnel_vpn.client.exits.measurement import measure_exits
from halftunnel_vpn.client.supervisor.events import Target
from halftunnel_vpn.client.supervisor.profile_source import ProfileSource
from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.control.status_schema import ExitOverview
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import ConfigError, HostError, UsageError
from halftunnel_vpn.host.record.wanted import Wanted


def checked_choice(profile: ClientProfile, exit: str | None, *, fastest: bool) -> ExitChoice:
    """Return the choice. Raises ConfigError for an exit that the profile lacks, UsageError for two wishes."""
    names = [entry.name for entry in profile.exits]
    if exit is not None and fastest:
        raise UsageError("name an exit, or ask for the fastest one, not both")
    if exit is not None and exit not in names:
        raise ConfigError(f"the profile {profile.name} has no exit {exit[:80]}; it has {', '.join(names)}")
    return ExitChoice(exit, fastest)


def switched(target: Target | None, exit: str | None, *, fastest: bool) -> Target:
    """Return the target that is up with another choice. Raises HostError if nothing is up."""
    if target is None:
        raise HostError("nothing is up: run `htvpn up` first")
    return target._replace(choice=checked_choice(target.profile, exit, fastest=fastest))


async def measured(name: str | None, profiles: ProfileSource, counters: Counters) -> list[ExitOverview]:
    """Measure the exits of a profile that has no tunnel. Raises ConfigError for an unknown profile."""
    profile = await asyncio.to_thread(lambda: profiles.load(profiles.resolve(name)))
    return await measure_exits(profile, counters, marked=True)


def choice_after_restart(profile: ClientProfile, wanted: Wanted) -> ExitChoice:
    """Return what was chosen before the restart; the order of priority if that exit is gone."""
    names = [entry.name for entry in profile.exits]
    if wanted.exit is not None and wanted.exit not in names:
        return BY_PRIORITY
    return ExitChoice(wanted.exit, wanted.fastest)


def wanted_of(target: Target) -> Wanted:
    """Return what the next start must do for a target that is wanted up."""
    return Wanted(target.name, up=True, exit=target.choice.name, fastest=target.choice.fastest)
