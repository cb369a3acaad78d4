"""Names of the roads' own domains: they must be found outside the tunnel, whoever rules the host's DNS."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from pathlib import Path
from typing import Any

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.dns.upstream import DNS_PORT, UpstreamResolver
from halftunnel_vpn.errors import DnsError
from halftunnel_vpn.host.resolver.backends import system_servers

MAX_NAMES = 64
"""Names whose last addresses are remembered: a profile has 32 URLs and a proxy."""

FRESH_WAIT = 0.25
"""Seconds that a leg waits for a fresh answer before it is dialled at the last known address."""

HOSTS = Path("/etc/hosts")

SocketAddress = tuple[Any, ...]


class RoadResolver:
    """Asks the resolvers that the host had before the tunnel, on marked sockets; remembers the last answer.

    Before :meth:`learn`, and where these resolvers fail, the host's own getaddrinfo is asked. A name that was
    found once is never waited for: on another network the old resolvers do not answer, and a leg must come
    back all the same. :meth:`close` ends what is still being asked. ``only_directly``: a kill switch lets
    no question pass but our marked ones, so that the host's own ways come last, as they do once
    :meth:`host_is_taken`.
    """

    def __init__(self, mark: int, counters: Counters, *, only_directly: bool = False) -> None:
        self._mark = mark
        self._counters = counters
        self._host_comes_last = only_directly
        self._direct: UpstreamResolver | None = None
        self._last: dict[str, list[str]] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._answers = True

    def close(self) -> None:
        """Ask nobody any more."""
        for task in self._asking.values():
            task.cancel()

    def host_is_taken(self) -> None:
        """From now on the host's own ways lead into the tunnel, and nowhere when that has no road."""
        self._host_comes_last = True

    async def learn(self, servers: tuple[str, ...] | None = None) -> None:
        """Note the host's own resolvers: ``servers``, or those it has now, before the tunnel changes them."""
        if servers is None:
            servers = await asyncio.to_thread(system_servers)
        if servers:
            self._direct = UpstreamResolver(
                [(server, DNS_PORT) for server in servers], counters=self._counters, mark=self._mark
            )

    async def resolve(self, host: str, port: int) -> list[SocketAddress]:
        """Socket addresses of ``host``. Raises OSError (socket.gaierror) when there are none."""
        try:
            return [(str(ipaddress.ip_address(host)), port)]
        except ValueError:
            pass  # a name, then
        if host not in self._last:
            # for the first time, and before the tunnel as every other program here does: /etc/hosts and all
            addresses = await self._ask_host(host)
            if len(self._last) < MAX_NAMES:
                self._last[host] = addresses
        else:
            addresses = await self._known(host)
        return [(address, port) for address in addresses]

    async def _known(self, host: str) -> list[str]:
        """What was found last, or what is found now if that is quick; asked for in the background anyway."""
        if host not in self._asking:
            self._asking[host] = asyncio.create_task(self._renew(host))
        if self._answers:  # else the next one does not pay for it as well
            await asyncio.wait([self._asking[host]], timeout=FRESH_WAIT)
        return self._last[host]

    async def _renew(self, host: str) -> None:
        try:
            addresses = await self._ask_directly(host)
            self._answers = bool(addresses)
            if addresses:
                self._last[host] = addresses
        finally:
            del self._asking[host]

    async def _ask_host(self, host: str) -> list[str]:
        if self._host_comes_last:
            addresses = _in_hosts_file(host) or await self._ask_directly(host)
            if addresses:
                return addresses
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    async def _ask_directly(self, host: str) -> list[str]:
        if self._direct is None:
            return []
        direct = self._direct
        answers = await asyncio.gather(*(self._ask_for(direct, host, version) for version in (6, 4)))
        return [address for answer in answers for address in answer]

    async def _ask_for(self, resolver: UpstreamResolver, host: str, version: int) -> list[str]:
        try:
            return await resolver.resolve(host, version)
        except DnsError as error:
            self._counters.drop(error.reason)
            return []


def _in_hosts_file(host: str) -> list[str]:
    """Addresses of a name in /etc/hosts (hosts(5))."""
    try:
        lines = HOSTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    wanted = host.rstrip(".").lower()
    found = []
    for line in lines:
        address, *names = line.partition("#")[0].split() or [""]
        if wanted in (name.lower() for name in names):
            try:
                found.append(str(ipaddress.ip_address(address)))
            except ValueError:
                continue  # a scope, or no address at all
    return found
