"""Addresses of the exit's host names, resolved outside the tunnel, whatever the host's DNS is."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from halftunnel_vpn.client.host.address_memory import AddressMemory
from halftunnel_vpn.client.host.hosts_file import HostsFile
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.dns.upstream import DNS_PORT, UpstreamResolver
from halftunnel_vpn.errors import DnsError, RoadError
from halftunnel_vpn.host.resolver.backends import system_servers
from halftunnel_vpn.host.resolver.forwarders import is_forwarder, servers_behind
from halftunnel_vpn.transport.name_lookup import in_thread, look_up

MAX_NAMES = 513
"""Names whose last addresses are kept: 16 exits of 32 URLs, and a proxy."""

FRESH_WAIT = 0.25
"""Seconds that a leg waits for a fresh answer before the last known address is dialled."""

REMEMBERED_WAIT = 3.0
"""Seconds that the first query of a process may take before the addresses on disk are used."""

FIRST_WAY = 5.0
"""Seconds for the more likely of the two ways to resolve a name,"""

SECOND_WAY = 3.0
"""and for the other one. The sum is less than the default time-out of a dial, so errors can be explained."""

SocketAddress = tuple[Any, ...]

log = logging.getLogger(__name__)


class RoadResolver:
    """Resolves the exit's names: hosts file, host's resolvers on marked sockets, getaddrinfo, last addresses.

    At first, getaddrinfo comes before the marked sockets, as in every other program. It does not if it cannot
    work: with ``only_directly`` (a kill switch permits only our marked queries), or after
    :meth:`host_is_taken`. Behind a forwarder of this host, the servers that it asks are asked as well. A name
    with a known address is never waited for: on another network the old resolvers do not answer, but a leg
    must come up all the same. ``memory`` keeps addresses over a restart. :meth:`close` cancels pending
    queries.
    """

    def __init__(
        self,
        mark: int | None,
        counters: Counters,
        *,
        only_directly: bool = False,
        memory: AddressMemory | None = None,
        hosts: HostsFile | None = None,
    ) -> None:
        self._mark = mark
        self._counters = counters
        self._host_comes_last = only_directly
        self._memory = memory
        self._hosts = hosts or HostsFile()
        self._direct: UpstreamResolver | None = None
        self._servers: tuple[str, ...] = ()
        self._last: dict[str, list[str]] = {}
        self._asking: dict[str, asyncio.Task[list[str]]] = {}
        self._answers = True

    def close(self) -> None:
        """Cancel all pending queries."""
        for task in self._asking.values():
            task.cancel()

    def host_is_taken(self) -> None:
        """Use marked sockets only: the host's own DNS leads into the tunnel from now on."""
        self._host_comes_last = True

    async def learn(self, servers: tuple[str, ...] | None = None) -> None:
        """Set the host's own resolvers: ``servers``, or those it has now, before the tunnel changes them."""
        if servers is None:
            servers = await in_thread(system_servers)
        if not servers or any(is_forwarder(server) for server in servers):
            servers = tuple(dict.fromkeys((*servers, *await in_thread(servers_behind))))
        self._servers = servers
        if servers:
            self._direct = UpstreamResolver(
                [(server, DNS_PORT) for server in servers], counters=self._counters, mark=self._mark
            )

    async def resolve(self, host: str, port: int) -> list[SocketAddress]:
        """Return the socket addresses of ``host``. Raises RoadError with the reason if there are none."""
        try:
            addresses = [str(ipaddress.ip_address(host))]
        except ValueError:
            addresses = self._hosts.addresses(host)
            if not addresses:
                addresses = await (self._known(host) if host in self._last else self._unknown(host))
        return [(address, port) for address in addresses]

    async def _known(self, host: str) -> list[str]:
        """Return a new answer if it comes quickly, otherwise the last one. The query always goes on."""
        search = self._search_for(host)
        if self._answers:  # otherwise the next caller would wait for it as well
            await asyncio.wait((search,), timeout=FRESH_WAIT)
        return self._last[host]

    async def _unknown(self, host: str) -> list[str]:
        """Return a new answer; if that fails or takes long, those that an earlier process has found."""
        search = self._search_for(host)
        remembered = [] if self._memory is None else self._memory.load(host)
        await asyncio.wait((search,), timeout=REMEMBERED_WAIT if remembered else None)
        if remembered and (not search.done() or search.cancelled() or search.exception() is not None):
            self._counters.count("road-addresses-remembered")
            log.warning("no resolver answers for %s: using its last addresses", host)
            self._note(host, remembered)
            return remembered
        return search.result()

    def _search_for(self, host: str) -> asyncio.Task[list[str]]:
        """Return the search for a name. There is at most one at a time."""
        if host not in self._asking:
            self._asking[host] = task = asyncio.create_task(self._search(host))
            task.add_done_callback(lambda task: task.cancelled() or task.exception())  # nobody may await it
        return self._asking[host]

    async def _search(self, host: str) -> list[str]:
        ways: list[Callable[[str], Awaitable[list[str]]]] = [look_up, self._ask_directly]
        if host in self._last:
            ways = [look_up if self._direct is None else self._ask_directly]
        elif self._host_comes_last:
            ways.reverse()
        is_unknown = False
        try:
            for way, limit in zip(ways, (FIRST_WAY, SECOND_WAY), strict=False):
                try:
                    async with asyncio.timeout(limit):
                        found = await way(host)
                except (OSError, UnicodeError, DnsError) as error:  # TimeoutError is an OSError
                    is_unknown = is_unknown or _denies(error)
                    continue
                if found:
                    self._answers = True
                    self._note(host, found)
                    if self._memory is not None:
                        await asyncio.to_thread(self._memory.save, host, found)
                    return found
            self._answers = False
            raise self._failure(host, is_unknown=is_unknown)
        finally:
            del self._asking[host]

    def _note(self, host: str, addresses: list[str]) -> None:
        if host in self._last or len(self._last) < MAX_NAMES:
            self._last[host] = addresses

    async def _ask_directly(self, host: str) -> list[str]:
        """Ask the host's resolvers on marked sockets. Raises DnsError if neither family has an answer."""
        if self._direct is None:
            return []
        answers = await asyncio.gather(
            *(self._direct.resolve(host, version) for version in (6, 4)), return_exceptions=True
        )
        found: list[str] = []
        for answer in answers:
            if isinstance(answer, DnsError):
                self._counters.drop(answer.reason)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                found += answer
        failures = [answer for answer in answers if isinstance(answer, DnsError)]
        if not found and failures:
            raise failures[0]
        return found

    def _failure(self, host: str, *, is_unknown: bool) -> RoadError:
        """Return an error that says why ``host`` was not found, and what to do."""
        by_hand = f"or put {host} with its address into /etc/hosts"
        if is_unknown:
            sentence = f"the name {host} does not exist: check its spelling in the profile"
        elif not self._servers:
            sentence = (
                f"the name {host} cannot be found, since this machine has no resolver: connect it to a "
                f"network, name one in /etc/resolv.conf, {by_hand}"
            )
        elif self._host_comes_last and all(is_forwarder(server) for server in self._servers):
            sentence = (
                f"the name {host} cannot be found: questions of the forwarder {self._servers[0]} are refused "
                "while the kill switch or the tunnel holds, and the servers behind it are not known; name "
                f"one of them in /etc/resolv.conf, {by_hand}"
            )
        else:
            sentence = (
                f"the name {host} cannot be found, since no resolver of this machine answers "
                f"({', '.join(self._servers)}): check its network, {by_hand}"
            )
        return RoadError(sentence, reason="name-not-resolved")


def _denies(error: Exception) -> bool:
    """Return whether a resolver has answered that the name does not exist."""
    if isinstance(error, DnsError):
        return error.reason in ("dns-no-such-name", "dns-bad-name")
    if isinstance(error, socket.gaierror):
        return error.errno in (socket.EAI_NONAME, socket.EAI_NODATA)
    return isinstance(error, UnicodeError)
