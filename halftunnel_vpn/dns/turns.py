"""Bounds on the questions that resolvers are asked, and turns among the clients who ask."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from halftunnel_vpn.errors import DnsError


@dataclass(frozen=True, slots=True)
class TurnLimits:
    """Bounds on questions: on the network and waiting, per client and in all.

    The last ``reserve`` places on the network are for clients that have fewer than ``few`` questions there.
    """

    per_client: int = 64
    total: int = 256
    reserve: int = 64
    few: int = 4
    waiting_per_client: int = 512
    waiting: int = 4096


ONE_CLIENT = TurnLimits(per_client=256, total=256, reserve=0, waiting_per_client=768, waiting=768)
"""Bounds where all questions are of one client."""


class ClientTurns:
    """Lets questions onto the network within limits; clients whose questions wait take turns.

    A client with many questions therefore delays no client with few.
    """

    def __init__(self, limits: TurnLimits) -> None:
        self._limits = limits
        # Questions that wait. The client whose turn is next comes first.
        self._waiting: dict[Hashable, dict[asyncio.Future[None], None]] = {}
        self._waiting_total = 0
        self._under_way: dict[Hashable, int] = {}
        self._total = 0

    @property
    def waiting(self) -> int:
        """Questions that wait."""
        return self._waiting_total

    @property
    def under_way(self) -> int:
        """Questions on the network."""
        return self._total

    @asynccontextmanager
    async def turn(self, client: Hashable) -> AsyncIterator[None]:
        """Wait until a question of ``client`` may be asked, and count it for the duration of the context.

        Raises DnsError when no more questions of ``client`` (``dns-client-limit``) or in all
        (``dns-too-many-queries``) may wait.
        """
        if self._may_start(client):
            self._start(client)
        else:
            await self._wait(client)
        try:
            yield
        finally:
            self._end(client)

    def _may_start(self, client: Hashable) -> bool:
        limits = self._limits
        own = self._under_way.get(client, 0)
        total = limits.total if own < limits.few else limits.total - limits.reserve
        return own < limits.per_client and self._total < total

    def _start(self, client: Hashable) -> None:
        self._total += 1
        self._under_way[client] = self._under_way.get(client, 0) + 1

    def _end(self, client: Hashable) -> None:
        self._total -= 1
        self._under_way[client] -= 1
        if not self._under_way[client]:
            del self._under_way[client]
        self._start_next()

    async def _wait(self, client: Hashable) -> None:
        self._make_room(client)
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, {})[place] = None
        self._waiting_total += 1
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                self._end(client)  # the turn came in the same moment
            else:
                self._remove(client, place)
            raise

    def _make_room(self, client: Hashable) -> None:
        """Make room for a question of ``client``, at the cost of the client with most waiting."""
        limits = self._limits
        own = len(self._waiting.get(client, ()))
        if own >= limits.waiting_per_client:
            raise DnsError("dns-client-limit")
        if self._waiting_total < limits.waiting:
            return
        greedy = max(self._waiting, key=lambda waiting: len(self._waiting[waiting]))
        if len(self._waiting[greedy]) <= own + 1:
            raise DnsError("dns-too-many-queries")
        last = next(reversed(self._waiting[greedy]))
        self._remove(greedy, last)
        if not last.done():
            last.set_exception(DnsError("dns-too-many-queries"))

    def _remove(self, client: Hashable, place: asyncio.Future[None]) -> None:
        places = self._waiting.get(client)
        if places is None or place not in places:
            return
        del places[place]
        self._waiting_total -= 1
        if not places:
            del self._waiting[client]

    def _start_next(self) -> None:
        """Let the next question that waits and may start begin."""
        for client in list(self._waiting):
            if not self._may_start(client):
                continue
            places = self._waiting.pop(client)
            while places:
                place = next(iter(places))
                del places[place]
                self._waiting_total -= 1
                if place.done():
                    continue  # cancelled, and its task has not run yet
                if places:
                    self._waiting[client] = places  # to the end of the queue
                self._start(client)
                place.set_result(None)
                return
