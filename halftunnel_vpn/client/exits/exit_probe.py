"""How long the way to an exit and back is: one WebSocket handshake over each path, and nothing more."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from time import monotonic
from typing import Final, NamedTuple

from halftunnel_vpn.client.legs.early_messages import EarlyMessages
from halftunnel_vpn.config.exits import ExitEntry, RoadConfig
from halftunnel_vpn.errors import RoadError
from halftunnel_vpn.transport.dial import DialOptions, dial

PROBE_TIMEOUT: Final = 4.0
"""Seconds that one handshake may take, from the name to its end."""

MAX_PROBED_URLS: Final = 2
"""URLs of one direction that are tried, in their order."""

Options = Callable[[RoadConfig], DialOptions]


class Probe(NamedTuple):
    """The round trip in seconds, or why there is none: one sentence."""

    round_trip: float | None
    problem: str | None


async def probe(entry: ExitEntry, options_of: Options) -> Probe:
    """Measure one exit. It makes no session: the exit sees a visitor on each path that leaves again.

    The round trip is the time from the upgrade request to its answer, which comes from the exit even where a
    front end terminates TCP and TLS; of both paths, the mean.
    """
    try:
        async with asyncio.TaskGroup() as tasks:
            ways = [
                tasks.create_task(_upgrade_time(road, options_of(road)))
                for road in (entry.upstream, entry.downstream)
            ]
    except BaseExceptionGroup as group:
        roads = group.subgroup(RoadError)
        if roads is None or len(roads.exceptions) < len(group.exceptions):
            raise
        return Probe(None, str(roads.exceptions[0]))
    return Probe(sum(way.result() for way in ways) / len(ways), None)


async def probe_all(entries: tuple[ExitEntry, ...], options_of: Options) -> dict[str, Probe]:
    """Measure every exit at the same time, twice one after the other; the lower value counts."""

    async def twice(entry: ExitEntry) -> Probe:
        first = await probe(entry, options_of)
        if first.round_trip is None:
            return first
        second = await probe(entry, options_of)
        if second.round_trip is None:
            return second
        return Probe(min(first.round_trip, second.round_trip), None)

    found = await asyncio.gather(*(twice(entry) for entry in entries))
    return {entry.name: result for entry, result in zip(entries, found, strict=True)}


async def _upgrade_time(road: RoadConfig, options: DialOptions) -> float:
    options = dataclasses.replace(options, connect_timeout=min(options.connect_timeout, PROBE_TIMEOUT))
    failure: RoadError | None = None
    for url in road.urls[:MAX_PROBED_URLS]:
        steps: list[float] = []
        try:
            leg = await dial(url, options, EarlyMessages(), advanced=lambda: steps.append(monotonic()))  # noqa: B023
        except RoadError as error:
            failure = error
            continue
        leg.abort()
        return monotonic() - steps[-1]
    assert failure is not None, "a direction has at least one URL"
    raise failure
