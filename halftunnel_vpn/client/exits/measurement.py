"""Measure the exits of a profile that has no tunnel."""

from __future__ import annotations

import dataclasses

from halftunnel_vpn.client.exits.exit_set import ExitSet
from halftunnel_vpn.client.exits.exit_status import exit_statuses
from halftunnel_vpn.client.host.road_resolver import RoadResolver
from halftunnel_vpn.client.settings import dial_options, traffic_policy
from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.config.exits import RoadConfig
from halftunnel_vpn.control.status_schema import ExitOverview
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.transport.dial import DialOptions


async def measure_exits(profile: ClientProfile, counters: Counters, *, marked: bool) -> list[ExitOverview]:
    """Return what each exit answers now. ``marked``: on sockets that go around a tunnel, which needs root."""
    guarded = traffic_policy(profile) is not None
    resolver = RoadResolver(profile.routes.mark if marked else None, counters, only_directly=guarded)

    def options_of(road: RoadConfig) -> DialOptions:
        options = dial_options(profile, road, resolver)
        return options if marked else dataclasses.replace(options, mark=None)

    exits = ExitSet.of(profile, options_of, counters, state_dir=None)
    try:
        await resolver.learn()
        await exits.measure()
    finally:
        exits.close()
        resolver.close()
    return exit_statuses(exits.ranking, None)
