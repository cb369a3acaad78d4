"""What all clients of an exit share, and the limits of streams: per client and in total."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from halftunnel_vpn.dns.upstream import UpstreamResolver
from halftunnel_vpn.errors import DnsError
from halftunnel_vpn.server.accounting.meters import Meters
from halftunnel_vpn.server.datagram_batch import DatagramBatch
from halftunnel_vpn.server.dialing import Dialer
from halftunnel_vpn.server.egress import EgressPolicy


class NatLimits(NamedTuple):
    """The limits of streams with sockets."""

    # Seconds without a datagram after which a UDP endpoint is closed.
    udp_idle: float
    streams_per_client: int
    max_streams: int


class Nat:
    """The parts that all sessions of the exit share, and the number of streams of each client.

    ``start`` runs a coroutine as an owned task.
    """

    def __init__(
        self,
        policy: EgressPolicy,
        dialer: Dialer,
        resolver: UpstreamResolver,
        limits: NatLimits,
        *,
        has_ipv6: Callable[[], bool],
        start: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self.driver = driver = dialer.driver
        self.watch = dialer.watch
        self.batch = DatagramBatch()
        self.policy = policy
        self.dialer = dialer
        self.resolver = resolver
        self.limits = limits
        """May be replaced; streams beyond new limits stay until they end."""
        self.has_ipv6 = has_ipv6
        self.start = start
        self.counters = dialer.counters
        self.meters = Meters(driver.wheel, driver.clock)
        # Streams of each client that has any.
        self._streams: dict[str, int] = {}
        # Names that are being resolved, by client and name.
        self._lookups: dict[tuple[str, str], _Lookup] = {}
        self.total = 0
        self.is_stopping = False
        """Whether new streams are refused because the exit stops."""

    def take(self, client: str) -> bool:
        """Count one more stream of ``client``, or one more socket of a stream; return False at a limit."""
        used = self._streams.get(client, 0)
        if used >= self.limits.streams_per_client or self.total >= self.limits.max_streams:
            self.counters.drop("stream-limit")
            return False
        self._streams[client] = used + 1
        self.total += 1
        return True

    def give_back(self, client: str) -> None:
        """Note that a stream of ``client`` has ended."""
        self.total -= 1
        self._streams[client] -= 1
        if not self._streams[client]:
            del self._streams[client]

    async def addresses_of(self, client: str, name: str) -> list[bytes]:
        """Return the addresses of ``name``, alternately IPv6 and IPv4 (RFC 8305 section 4); empty if none.

        Streams of one client that need the same name at the same time share one question for each family: a
        browser opens many connections to one host. Raises DnsError when the resolvers cannot be queried, or
        not for ``client`` now (see ClientTurns).
        """
        key = client, name.lower()
        lookup = self._lookups.get(key)
        if lookup is None:
            lookup = self._lookups[key] = _Lookup(self.driver.loop.create_future())
            lookup.task = self.start(self._look_up(key, lookup))
        lookup.waiting += 1
        try:
            return await asyncio.shield(lookup.outcome)
        finally:
            lookup.waiting -= 1
            if not lookup.waiting and not lookup.outcome.done():
                self._discard(key, lookup)
                lookup.task.cancel()

    async def _look_up(self, key: tuple[str, str], lookup: _Lookup) -> None:
        try:
            lookup.outcome.set_result(await self._ask(*key))
        except DnsError as error:
            lookup.outcome.set_exception(error)
        except Exception as error:
            lookup.outcome.set_exception(error)
            raise
        finally:
            self._discard(key, lookup)

    def _discard(self, key: tuple[str, str], lookup: _Lookup) -> None:
        if self._lookups.get(key) is lookup:
            del self._lookups[key]

    async def _ask(self, client: str, name: str) -> list[bytes]:
        found: dict[int, list[bytes]] = {6: [], 4: []}
        failure: DnsError | None = None
        versions = (6, 4) if self.has_ipv6() else (4,)
        questions = [self.resolver.resolve(name, version, client) for version in versions]
        outcomes = await asyncio.gather(*questions, return_exceptions=True)
        for version, outcome in zip(versions, outcomes, strict=True):
            if isinstance(outcome, DnsError):
                failure = outcome
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                found[version] = [ipaddress.ip_address(text).packed for text in outcome]
        if failure is not None and not any(found.values()):
            raise failure
        longest = max(len(found[6]), len(found[4]))
        return [one for i in range(longest) for version in (6, 4) for one in found[version][i : i + 1]]


class _Lookup:
    """A name that is being resolved, and how many streams wait for it; the last that gives up ends it."""

    __slots__ = ("outcome", "task", "waiting")

    task: asyncio.Task[None]

    def __init__(self, outcome: asyncio.Future[list[bytes]]) -> None:
        self.outcome = outcome
        self.waiting = 0
        # Its failure is nobody's when no stream waits for it any more.
        outcome.add_done_callback(lambda done: done.cancelled() or done.exception())


class StreamPlace:
    """The places of one stream of ``client`` in the NAT table: one per socket, but at least one."""

    __slots__ = ("_client", "_nat", "_taken")

    def __init__(self, nat: Nat, client: str) -> None:
        self._client = client
        self._nat = nat
        self._taken = 1

    def room_for(self, sockets: int) -> bool:
        """Return whether the stream may have ``sockets`` sockets; at most one more than before."""
        if sockets > self._taken:
            if not self._nat.take(self._client):
                return False
            self._taken += 1
        return True

    def give_back(self) -> None:
        """Note that the stream has ended. Further calls do nothing."""
        for _ in range(self._taken):
            self._nat.give_back(self._client)
        self._taken = 0
