"""What leads to the exits of a profile: their names, their connectors, one connection, and its keeper."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from halftunnel_vpn.client.connection import Connection, ConnectionOwner
from halftunnel_vpn.client.exits.exit_keeper import ExitKeeper
from halftunnel_vpn.client.exits.exit_ranking import BY_PRIORITY, ExitChoice
from halftunnel_vpn.client.exits.exit_set import ExitSet
from halftunnel_vpn.client.exits.exit_status import exit_statuses
from halftunnel_vpn.client.host.road_resolver import RoadResolver
from halftunnel_vpn.client.legs.leg_info import LegInfo
from halftunnel_vpn.client.legs.new_session import NewSession
from halftunnel_vpn.client.legs.remembered_file import KEEPALIVE_FILE, PADDING_FILE, RememberedFile
from halftunnel_vpn.client.padding_memory import PaddingMemory
from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.config.exits import RoadConfig
from halftunnel_vpn.control.status_schema import ExitOverview
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.protocol.trace_ports import NO_TRACING, Tracing
from halftunnel_vpn.session.intervals import IntervalTable
from halftunnel_vpn.transport.dial import DialOptions
from halftunnel_vpn.transport.driver import Driver
from halftunnel_vpn.transport.faults import endless


class Dialling(NamedTuple):
    """How the exits are dialled: who finds their names, the options of each path, and what is kept where."""

    resolver: RoadResolver
    options_of: Callable[[RoadConfig], DialOptions]
    # Where the times of handshakes, the intervals of keepalives and a day's padding are kept; None: nowhere.
    state_dir: Path | None
    tracing: Tracing = NO_TRACING


class ExitLink:
    """Connects to one of the exits: :meth:`establish`, :meth:`run` until cancelled, then :meth:`close`."""

    def __init__(
        self,
        profile: ClientProfile,
        driver: Driver,
        counters: Counters,
        owner: ConnectionOwner,
        dialling: Dialling,
        choice: ExitChoice = BY_PRIORITY,
    ) -> None:
        limits = profile.limits
        intervals = IntervalTable(limits.keepalive, limits.keepalive_longest)
        resolver, options_of, state_dir, tracing = dialling
        self._resolver = resolver
        self._owner = owner
        self.exits = ExitSet.of(
            profile, options_of, counters, state_dir=state_dir, choice=choice, tracing=tracing
        )
        self.connection = Connection(
            profile,
            self.exits,
            driver,
            counters,
            owner._replace(legs_changed=self._legs_changed),
            intervals,
        )
        self._remembered: list[RememberedFile] = []
        if state_dir is not None:
            padding = PaddingMemory(self.connection.shaping, driver.clock)
            self._remembered = [
                RememberedFile(intervals, state_dir / KEEPALIVE_FILE, driver),
                RememberedFile(padding, state_dir / PADDING_FILE, driver),
            ]
        self._keeper = ExitKeeper(
            self.exits,
            self.connection,
            profile.failover,
            counters,
            clock=driver.clock,
            random=random.random,
        )

    def start(self) -> None:
        """Read what earlier connections have learnt."""
        for file in self._remembered:
            file.start()

    async def establish(self) -> NewSession:
        """Make the first session. Raises RoadError or HandshakeError."""
        await self._resolver.learn()
        return await self.connection.establish()

    async def run(self) -> None:
        """Keep the connection up, with one exit or another."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(endless(self.connection.run(), "the connection"))
            tasks.create_task(endless(self._keeper.run(), "the watch over the exits"))

    def reconnect(self) -> None:
        """Replace every leg at once. Without a session, the next attempt begins now."""
        self._keeper.network_changed()
        self.connection.reconnect()

    def legs(self) -> list[LegInfo]:
        """Return every open leg of the session."""
        return self.connection.legs()

    def choose(self, choice: ExitChoice) -> asyncio.Future[str]:
        """Use another exit, or another order. The result is the name of the exit in use, or a HostError."""
        return self._keeper.choose(choice)

    def statuses(self) -> list[ExitOverview]:
        """Return every exit for the status."""
        in_use = self.exits.ranking.in_use if self.connection.has_session else None
        return exit_statuses(self.exits.ranking, in_use)

    def close(self) -> None:
        """End the session cleanly."""
        self._resolver.close()
        self.exits.close()
        self.connection.close()
        for file in self._remembered:
            file.stop()

    def _legs_changed(self) -> None:
        self._keeper.changed()
        self._owner.legs_changed()
