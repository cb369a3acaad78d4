"""The resolvers that the exit asks: those of its configuration, otherwise those of its host."""

from __future__ import annotations

import logging
from pathlib import Path

from halftunnel_vpn.config.server import ServerConfig
from halftunnel_vpn.dns.dns_config import Server
from halftunnel_vpn.dns.upstream import DNS_PORT, parse_resolv_conf

RESOLV_CONF = Path("/etc/resolv.conf")

MAX_RESOLV_CONF = 64 * 1024
"""The most bytes that are read of it."""

log = logging.getLogger(__name__)


class ResolverList:
    """The resolvers of one configuration. The host's resolv.conf may change or vanish while the exit runs."""

    def __init__(self, config: ServerConfig, path: Path = RESOLV_CONF) -> None:
        self._named = [(str(address), DNS_PORT) for address in config.dns.resolvers]
        self._path = path
        self._is_known_empty = False

    def current(self) -> list[Server]:
        """Return the resolvers to ask now. Warn once if there are none."""
        servers = self._named or self._of_host()
        if not servers and not self._is_known_empty:
            log.warning("no resolver is known: name them in [dns] resolvers of server.toml")
        self._is_known_empty = not servers
        return servers

    def _of_host(self) -> list[Server]:
        try:
            with self._path.open("rb") as file:
                content = file.read(MAX_RESOLV_CONF)
        except OSError:
            return []
        return parse_resolv_conf(content.decode(errors="replace"))
