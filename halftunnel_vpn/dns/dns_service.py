"""Answer every DNS query of the host: from the cache or by a rule at once, otherwise by a resolver."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.dns.answer import Answer, parse_answer
from halftunnel_vpn.dns.cache import DnsCache
from halftunnel_vpn.dns.dns_config import DnsServiceConfig, Server
from halftunnel_vpn.dns.fakeip import FakePool, reverse_address
from halftunnel_vpn.dns.hints import ALL_HINTS, IPV6_HINTS, without_hints
from halftunnel_vpn.dns.message import (
    LocalRecord,
    Query,
    local_answer,
    negative_authority,
    parse_query,
    ptr_record,
    refuse,
    zone_name,
)
from halftunnel_vpn.dns.message_reader import Rcode, RecordType
from halftunnel_vpn.dns.rules import Rules
from halftunnel_vpn.errors import DnsError, HalfTunnelError, PeerError
from halftunnel_vpn.flow.interfaces import DnsOutcome

log = logging.getLogger(__name__)

MAX_QUERIES_IN_FLIGHT = 1024
"""Different questions that resolvers are asked at one time; one client has at most as many as are free."""

MAX_REPLIES_WAITING = 4096
"""Replies that are waited for at one time; one client waits for at most as many as are free."""

MAX_REFRESHES = 64
"""Answers that are refreshed at one time, ahead of their end or while they are served stale."""

Forward = Callable[[bytes], Awaitable[bytes]]
"""Asks through the tunnel. May raise SessionError, DnsError, TimeoutError."""

DirectQuery = Callable[[tuple[Server, ...], bytes], Awaitable[bytes]]
"""Asks resolvers outside the tunnel; may raise DnsError."""

Reply = Callable[[bytes], None]
"""Gets the answer; called once at most, perhaps before ``query`` returns. It must not raise."""


class _Pending:
    """A question on its way to a resolver, and the queries that wait for its answer."""

    __slots__ = ("task", "waiting")

    def __init__(self, task: asyncio.Task[None]) -> None:
        self.task = task
        self.waiting: list[tuple[Query, Reply, bool, bytes]] = []


class DnsService:
    """The client's resolver (the flow package's DnsPort). No query is ever logged.

    :meth:`run` must be running for questions that go to a resolver; without it they get SERVFAIL.
    ``first_fake`` is where the fake addresses of this run begin in their networks: a random number.
    """

    def __init__(
        self,
        config: DnsServiceConfig,
        forward: Forward,
        direct: DirectQuery,
        clock: Callable[[], float],
        counters: Counters,
        *,
        first_fake: int = 0,
    ) -> None:
        self._config = config
        self._forward = forward
        self._direct = direct
        self._clock = clock
        self._counters = counters
        self._rules = Rules(config)
        self._cache = DnsCache(config.cache, counters)
        self._pools: dict[int, FakePool] = {}
        if config.mode == "fake-ip":
            for network in (config.fake_network_v4, config.fake_network_v6):
                pool = FakePool(
                    network, max_entries=config.fake_max_names, hold=config.fake_hold, first=first_fake
                )
                self._pools[pool.version] = pool
        self._pending: dict[bytes, _Pending] = {}
        self._waiting = 0
        self._waiting_of: dict[bytes, int] = {}
        self._refreshes: set[asyncio.Task[None]] = set()
        self._identifier = 0
        self._group: asyncio.TaskGroup | None = None
        self._closed = asyncio.Event()

    @property
    def cache_entries(self) -> int:
        """Answers that are remembered now."""
        return len(self._cache)

    async def run(self) -> None:
        """Own the questions that are on their way, until :meth:`close`; those left then are forgotten."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                await self._closed.wait()
                self._group = None
                for pending in self._pending.values():
                    pending.task.cancel()
        finally:
            self._group = None
            # A task that was cancelled before its first step has cleared nothing away.
            self._pending.clear()
            self._waiting = 0
            self._waiting_of.clear()

    def close(self) -> None:
        """Let :meth:`run` return."""
        self._closed.set()

    def forget(self) -> None:
        """Empty the cache: another exit may answer otherwise. Fake addresses keep their meaning."""
        self._cache.clear()

    def set_ipv6(self, available: bool) -> None:
        """Set whether IPv6 leads anywhere. If not, AAAA is answered empty (see DnsServiceConfig.ipv6)."""
        if available != self._rules.ipv6:
            self._rules.ipv6 = available
            self._cache.clear()

    @property
    def in_flight(self) -> int:
        """Different questions that resolvers are being asked now."""
        return len(self._pending)

    def query(
        self,
        message: bytes,
        reply: Reply,
        *,
        stream: bool,
        client: bytes = b"",
        names_server: bool = False,
    ) -> DnsOutcome:
        """Answer the query in ``message`` by calling ``reply``, at once where no resolver has to be asked.

        ``stream``: the query came by TCP, so its answer may have any size. ``client``: the address that asks;
        clients share what is bounded. ``names_server``: it was sent to a server other than our own resolver,
        and what only that server can answer is FOR_SERVER. Nothing is raised: a malformed query is answered
        with FORMERR or, if it has no header or is a response, not at all (IGNORED).
        """
        try:
            query = parse_query(message)
        except DnsError as error:
            if names_server and error.reason == "dns-bad-opcode" and self._may_leave(zone_name(message)):
                return self._for_server()
            self._counters.drop(error.reason)
            refusal = refuse(message, error)
            if refusal is None:
                return DnsOutcome.IGNORED
            reply(refusal)
            return DnsOutcome.ANSWERED
        if names_server and query.concerns_server and self._may_leave(query.name):
            return self._for_server()
        hit = self._cache.get(query.key, self._clock())
        if hit is not None:
            reply(hit.answer.render(query, hit.age, stream=stream))
            if hit.is_due:
                self._refresh(query)
            return DnsOutcome.ANSWERED
        local = self._rules.answer(query, stream=stream) or self._fake_answer(query, stream)
        if local is not None:
            self._counters.count("dns-answered-locally")
            reply(local)
        else:
            self._ask(query, reply, stream, client)
        return DnsOutcome.ANSWERED

    def _may_leave(self, name: str | None) -> bool:
        """Return whether ``name`` may be sent to the Internet: not if it is blocked or in a split domain."""
        return name is None or not (self._rules.stays_here(name) or self._rules.resolvers(name))

    def _for_server(self) -> DnsOutcome:
        self._counters.count("dns-queries-for-server")
        return DnsOutcome.FOR_SERVER

    def is_fake(self, address: bytes) -> bool:
        """Return whether ``address`` (4 or 16 bytes) is one that only stands for a name, now or formerly."""
        return any(address in pool for pool in self._pools.values())

    def name_of(self, address: bytes) -> str | None:
        """Return the name that the fake ``address`` (4 or 16 bytes) stands for."""
        pool = self._pools.get(4 if len(address) == 4 else 6)
        return pool.name_of(address, self._clock()) if pool is not None else None

    def address_of(self, name: str, version: int) -> bytes | None:
        """The fake address (``version`` 4 or 6) that was given out for ``name`` (lower case, no last dot)."""
        pool = self._pools.get(version)
        return pool.address_of(name, self._clock()) if pool is not None else None

    def _fake_answer(self, query: Query, stream: bool) -> bytes | None:
        """Return the reply in fake-ip mode; None if a resolver is to be asked."""
        if not self._pools:
            return None
        name, ttl = query.name, self._config.fake_ttl
        if query.type == RecordType.PTR:
            address = reverse_address(name)
            if address is None or not self.is_fake(address):
                return None
            known = self._pools[4 if len(address) == 4 else 6].look_up(address)
            if known is None:
                nothing = (negative_authority(ttl),)
                return local_answer(query, Rcode.NXDOMAIN, authorities=nothing, stream=stream)
            return local_answer(query, answers=(ptr_record(known, ttl),), stream=stream)
        version = _VERSIONS.get(query.type)
        if version is None or not self._rules.may_be_fake(name) or self._rules.resolvers(name) is not None:
            return None
        address = self._pools[version].lease(name, self._clock())
        if address is None:
            self._counters.drop("dns-no-fake-address")
            return local_answer(query, Rcode.SERVFAIL, stream=stream)
        return local_answer(query, answers=(LocalRecord(query.type, ttl, address),), stream=stream)

    def _ask(self, query: Query, reply: Reply, stream: bool, client: bytes) -> None:
        """Have a resolver asked, unless the same question is on its way already."""
        pending = self._pending.get(query.key)
        # A client has at most as many as are still free: however many clients ask, there is room for another.
        used = self._waiting_of.get(client, 0)
        if used >= MAX_REPLIES_WAITING - self._waiting or (
            pending is None and used >= MAX_QUERIES_IN_FLIGHT - len(self._pending)
        ):
            self._counters.drop("dns-too-many-queries")
            reply(local_answer(query, Rcode.SERVFAIL, stream=stream))
            return
        if pending is None:
            if self._group is None:
                self._counters.drop("dns-not-running")
                reply(local_answer(query, Rcode.SERVFAIL, stream=stream))
                return
            pending = _Pending(self._group.create_task(self._resolve(query)))
            self._pending[query.key] = pending
        else:
            self._counters.count("dns-queries-joined")
        pending.waiting.append((query, reply, stream, client))
        self._waiting += 1
        self._waiting_of[client] = used + 1

    def _refresh(self, query: Query) -> None:
        """Ask a resolver again for an answer that is still served."""
        if query.key in self._pending or self._group is None:
            return
        if len(self._refreshes) >= MAX_REFRESHES:
            self._counters.drop("dns-too-many-refreshes")
            return
        self._counters.count("dns-refreshes")
        task = self._group.create_task(self._resolve(query))
        self._pending[query.key] = _Pending(task)
        self._refreshes.add(task)
        task.add_done_callback(self._refreshes.discard)

    async def _resolve(self, query: Query) -> None:
        answer = None
        try:
            answer = await self._answer(query)
        except Exception as error:  # a fault of ours with one name must not end the tunnel
            asyncio.get_running_loop().call_exception_handler(
                {"message": "the resolution of a name failed", "exception": error}
            )
        finally:
            waiting = self._pending.pop(query.key).waiting
            for _, _, _, client in waiting:
                self._release(client)
        if answer is not None:
            self._cache.put(query.key, answer, self._clock())
        for asked, reply, stream, _ in waiting:
            try:
                if answer is not None:
                    reply(answer.render(asked, 0, stream=stream))
                else:
                    reply(local_answer(asked, Rcode.SERVFAIL, stream=stream))
            except Exception:
                # The others who wait get their answers, and the tunnel goes on.
                log.exception("a DNS answer could not be delivered")
                self._counters.drop("dns-reply-failed")

    def _release(self, client: bytes) -> None:
        self._waiting -= 1
        self._waiting_of[client] -= 1
        if not self._waiting_of[client]:
            del self._waiting_of[client]

    async def _answer(self, query: Query) -> Answer | None:
        """Return what a resolver answers; None when none does, or nothing that makes sense."""
        self._identifier = (self._identifier + 1) & 0xFFFF
        question = query.question_to_forward(self._identifier)
        resolvers = self._rules.resolvers(query.name)
        try:
            async with asyncio.timeout(self._config.timeout):
                if resolvers is None:
                    self._counters.count("dns-queries-forwarded")
                    message = await self._forward(question)
                else:
                    self._counters.count("dns-queries-direct")
                    message = await self._direct(resolvers, question)
            return parse_answer(self._without_addresses(message, query), query)
        except PeerError as error:
            self._counters.drop(error.reason)
        except TimeoutError:
            self._counters.drop("dns-timeout")
        except (HalfTunnelError, OSError):
            self._counters.drop("dns-no-path")
        except Exception:
            # A fault of ours that some message brings out must not end the tunnel.
            log.exception("a DNS question failed")
            self._counters.drop("dns-failed")
        return None

    def _without_addresses(self, message: bytes, query: Query) -> bytes:
        """Return an answer without addresses that this host shall not use. Raises DnsError."""
        if self._rules.resolvers(query.name) is not None:
            return message
        if self._pools and self._rules.may_be_fake(query.name):
            return without_hints(message, query, ALL_HINTS, hide_records=True)
        if not self._rules.ipv6:
            return without_hints(message, query, IPV6_HINTS, hide_records=False)
        return message


_VERSIONS = {RecordType.A: 4, RecordType.AAAA: 6}
