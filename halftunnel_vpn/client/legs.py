"""Keeps the legs of a session up: one keeper for each connection that the profile asks for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from halftunnel_vpn.client.arrivals import LegClosed
from halftunnel_vpn.client.backoff import Backoff
from halftunnel_vpn.client.connector import Connector, NewLeg, NewSession
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import HandshakeError, RoadError
from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.session.legs import LegState
from halftunnel_vpn.session.session import Session
from halftunnel_vpn.transport.driver import Driver
from halftunnel_vpn.transport.sealed import SealedLeg

RESTLESS = 1.0
"""Seconds of life below which a leg that worked is not opened again at once."""

RESTLESS_PAUSE = 0.25
"""Seconds that such a leg waits at the most: something cuts legs again and again, yet they do carry data."""

REFUSED_BY_EXIT = "leg-closed-peer-closed-1000"
"""Reason of a join that the exit itself refused; what stands before it closes otherwise when it restarts."""

MAX_LEG_NUMBER_AHEAD = 48
"""Leg numbers that may go unanswered in a row (the exit accepts JOIN_WINDOW above its highest)."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LegInfo:
    """One open leg, for the status. Times are seconds, bytes are record bytes of this leg so far."""

    direction: Direction
    number: int
    domain: str
    """Host and port of its URL; the path is a secret."""
    address: str
    """The address that was dialled."""
    round_trip: float | None
    """None until measured."""
    age: float
    bytes_sent: int
    bytes_received: int


def describe(leg: LegState, now: float) -> LegInfo:
    """What the status says of ``leg``."""
    return LegInfo(
        leg.direction,
        leg.number,
        urlsplit(leg.name).netloc,
        leg.address,
        leg.round_trip,
        now - leg.opened_at,
        leg.bytes_sent,
        leg.bytes_received,
    )


class LegKeepers:
    """All legs of one session. :meth:`run` ends when the session cannot be resumed any more.

    ``changed`` is called whenever a leg has joined or is gone.
    """

    def __init__(
        self,
        connector: Connector,
        session: Session,
        established: NewSession,
        driver: Driver,
        counters: Counters,
        changed: Callable[[], None],
    ) -> None:
        self._connector = connector
        self._session = session
        self._keys = established.keys
        self._driver = driver
        self._counters = counters
        self._changed = changed
        self._next_number = dict.fromkeys(Direction, 1)
        self._unanswered = dict.fromkeys(Direction, 0)
        self._expired = asyncio.Event()
        self._moving = asyncio.Event()
        self._first = {
            Direction.UPSTREAM: established.upstream,
            Direction.DOWNSTREAM: established.downstream,
        }

    async def run(self) -> None:
        """Keep every leg up until the session is over (ended by either side, or refused by the exit)."""
        async with asyncio.TaskGroup() as group:
            keepers = [
                group.create_task(self._keep(direction, url, first))
                for direction in Direction
                for url, first in self._slots(direction)
            ]
            await self._expired.wait()
            for keeper in keepers:
                keeper.cancel()

    def expire(self) -> None:
        """The session is over: let :meth:`run` return."""
        self._expired.set()

    def move(self) -> None:
        """Replace every leg now, and end every pause between attempts."""
        moving, self._moving = self._moving, asyncio.Event()
        moving.set()
        for leg in list(self._session.legs):
            leg.port.close("moved")

    async def _pause(self, seconds: float) -> None:
        """Wait so long, or until :meth:`move`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._moving.wait()

    def _slots(self, direction: Direction) -> list[tuple[str, NewLeg | None]]:
        """The URL of every connection, with the handshake's own leg where it belongs."""
        road = self._connector.road(direction)
        slots: list[tuple[str, NewLeg | None]] = []
        first: NewLeg | None = self._first[direction]
        for url in road.urls:
            for _ in range(road.connections):
                if first is not None and first.url == url:
                    slots.append((url, first))
                    first = None
                else:
                    slots.append((url, None))
        return slots

    async def _keep(self, direction: Direction, url: str, leg: NewLeg | None) -> None:
        backoff = Backoff(random.random)
        while True:
            if leg is None:
                leg = await self._open(direction, url, backoff)
            began = self._driver.clock()
            worked = await self._serve(leg)
            leg = None
            if not worked:
                await self._pause(backoff.next_delay())
                continue
            backoff.reset()
            if self._driver.clock() - began < RESTLESS:
                await self._pause(RESTLESS_PAUSE * random.random())

    async def _open(self, direction: Direction, url: str, backoff: Backoff) -> NewLeg:
        """A new leg, however many attempts it takes."""
        while True:
            if self._unanswered[direction] >= MAX_LEG_NUMBER_AHEAD:
                self.expire()  # the exit would not accept the next number
            number = self._next_number[direction]
            self._next_number[direction] += 1
            self._unanswered[direction] += 1
            try:
                leg = await self._connector.join(self._keys, direction, number, url)
            except LegClosed as error:
                self._failed(direction, error.reason)
                if error.reason == REFUSED_BY_EXIT and not self._session.legs:
                    self.expire()  # the exit is there and does not know the session any more
            except RoadError as error:
                self._failed(direction, error.reason)
                if error.reason != "handshake-timeout":
                    self._next_number[direction] -= self._next_number[direction] == number + 1
                    self._unanswered[direction] -= 1
            except HandshakeError as error:
                self._failed(direction, error.reason)
            else:
                self._unanswered[direction] = 0
                return leg
            await self._pause(backoff.next_delay())

    async def _serve(self, leg: NewLeg) -> bool:
        """Let the leg carry trains until it is lost; whether it ever brought one."""
        lost = asyncio.Event()

        def on_lost(state: LegState, cause: str) -> None:
            log.info(
                "leg lost: %s", cause, extra={"direction": leg.direction.name.lower(), "leg": leg.number}
            )
            name = leg.direction.name.lower()
            self._counters.count(f"legs-lost-{name}")
            # what the status adds up over all legs there ever were
            self._counters.count(f"{name}-bytes-sent", state.bytes_sent)
            self._counters.count(f"{name}-bytes-received", state.bytes_received)
            self._counters.count(f"{name}-messages-sent", state.records_sent)
            self._counters.count(f"{name}-messages-received", state.records_received)
            lost.set()
            self._changed()

        clock = self._driver.clock
        sealed = SealedLeg(leg.leg, self._session, leg.keys, clock, self._counters, on_lost)
        sealed.state = LegState(
            sealed, leg.direction, leg.number, clock(), name=leg.url, address=leg.leg.peer
        )
        self._session.leg_joined(sealed.state, clock())
        leg.arrivals.hand_over(leg.leg, sealed)
        self._counters.count(f"legs-joined-{leg.direction.name.lower()}")
        self._changed()
        await lost.wait()  # whoever cancels this closes the session, which says goodbye on the leg
        return sealed.state.records_received > 0

    def _failed(self, direction: Direction, reason: str) -> None:
        self._counters.drop(f"join-{reason}")
        log.info("a leg could not be opened: %s", reason, extra={"direction": direction.name.lower()})
