"""Names of the roads' own domains: they must be found outside the tunnel, whoever rules the host's DNS."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Any

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.dns.upstream import DNS_PORT, UpstreamResolver
from halftunnel_vpn.errors import DnsError
from halftunnel_vpn.host.resolver import system_servers

MAX_NAMES = 64
"""Names whose last addresses are remembered: a profile has 32 URLs and a proxy."""

SocketAddress = tuple[Any, ...]


class RoadResolver:
    """Asks the resolvers that the host had before the tunnel, on marked sockets; remembers the last answer.

    Before :meth:`learn`, and where these resolvers fail, the host's own getaddrinfo is asked.
    """

    def __init__(self, mark: int, counters: Counters) -> None:
        self._mark = mark
        self._counters = counters
        self._direct: UpstreamResolver | None = None
        self._last: dict[str, list[str]] = {}

    async def learn(self) -> None:
        """Note the host's resolvers while they are still its own."""
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
            # for the first time, as every other program here does: /etc/hosts and all
            addresses = await self._ask_host(host)
        else:
            addresses = await self._ask_directly(host) or self._last[host]
        if len(self._last) < MAX_NAMES:
            self._last[host] = addresses
        return [(address, port) for address in addresses]

    async def _ask_host(self, host: str) -> list[str]:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    async def _ask_directly(self, host: str) -> list[str]:
        if self._direct is None:
            return []
        addresses: list[str] = []
        for version in (6, 4):
            try:
                addresses += await self._direct.resolve(host, version)
            except DnsError as error:
                self._counters.drop(error.reason)
        return addresses
