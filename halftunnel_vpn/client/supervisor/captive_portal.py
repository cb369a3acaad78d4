"""Detection of captive portals: a network that answers in place of the exit.

No third party is contacted. When a leg fails in a way that is typical of a portal, its own host is asked for
a page on port 80, in clear and on a marked socket. A portal answers with a redirect to itself. The request
shows only what a failed leg has shown already: the address, and the name in TLS.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from halftunnel_vpn.client.host.road_resolver import RoadResolver
from halftunnel_vpn.client.settings import PROBE_PORT, probe_ports, traffic_policy
from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import HalfTunnelError, PeerError
from halftunnel_vpn.transport.browser_request import USER_AGENT
from halftunnel_vpn.transport.connect import Resolver, connect
from halftunnel_vpn.transport.http_head import HeadReader, header, parse_status
from halftunnel_vpn.transport.http_proxy import bracketed

PROBE_TIMEOUT: Final = 5.0
"""Seconds for the name look-up and the head of the answer together."""

PROBE_INTERVAL: Final = 15.0
"""The shortest time in seconds between two probes. The last result is used in between."""

RETRY_DELAY: Final = 5.0
"""The longest time in seconds between two attempts while a portal is known: the user may be signing in."""

NETWORK_AUTHENTICATION_REQUIRED: Final = 511
"""The status that explicitly means a portal (RFC 6585, section 6)."""

_FOREIGN_CERTIFICATE: Final = frozenset(
    {"certificate-not-trusted", "certificate-wrong-name", "certificate-not-pinned"}
)
_SMELLS: Final = _FOREIGN_CERTIFICATE | {
    "direction-lost",
    "bytes-before-tls", "certificate-expired", "closed-in-handshake", "connect-timeout",
    "connection-refused", "connection-reset", "handshake-timeout", "host-unreachable", "not-a-websocket",
    "tls-failed", "tls-timeout",
}  # fmt: skip
_READ_SIZE: Final = 4096
_HOST: Final = re.compile(r"[0-9a-z._:-]{1,253}")


@dataclass(frozen=True, slots=True)
class Portal:
    """A captive portal. ``host`` is the target of its redirect, None if it sends none.

    ``is_sure`` is False if it is only known that something else answers for the exit.
    """

    host: str | None = None
    is_sure: bool = True

    def sentence(self, failure: str, *, is_blocked: bool, goes_on: bool) -> str:
        """Return what to do about it. ``failure`` is the error of the leg.

        ``is_blocked``: the kill switch blocks it for browsers. ``goes_on``: the tunnel is tried again.
        """
        where = f" (it sends to {self.host})" if self.host else ""
        opened = "run `htvpn portal`, " if is_blocked else ""
        then = "the tunnel comes up by itself" if goes_on else "then run `htvpn up` again"
        what = "A captive portal stands" if self.is_sure else "A captive portal seems to stand"
        advice = f"{what} in the way{where}: {opened}open any http:// page in a browser, sign in; {then}."
        return advice if self.is_sure else f"{advice} If there is no such page: {failure}"


def may_be_portal(reason: str) -> bool:
    """Return whether a portal is one possible cause of failures with this reason."""
    return reason in _SMELLS or reason.startswith("http-status-")


def judge(head: bytes, names: tuple[str, ...], *, reason: str) -> Portal | None:
    """Return the portal that an answer on port 80 shows; None if it shows none.

    ``head`` is the head of the answer of a host that has ``names``. ``reason`` is the reason of the failure
    of the leg to this host. A redirect to another host of the same site does not count.
    """
    try:
        status = parse_status(head)
    except PeerError:
        return None
    if status == NETWORK_AUTHENTICATION_REQUIRED:
        return Portal()
    redirects = 300 <= status < 400
    target = _host_of(header(head, "location") or "") if redirects else None
    if target is not None:
        return None if any(_is_same_site(target, name) for name in names) else Portal(target)
    if reason in _FOREIGN_CERTIFICATE and (redirects or status == 200):
        return Portal(is_sure=False)
    return None


class PortalWatch:
    """Probes when needed, and caches the result. ``clock`` returns seconds."""

    def __init__(self, counters: Counters, clock: Callable[[], float]) -> None:
        self._counters = counters
        self._clock = clock
        self._asked: float | None = None
        self._known: Portal | None = None

    def forget(self) -> None:
        """Drop the cached result: a leg has joined, or the network is another one."""
        self._asked = self._known = None

    async def check(
        self, profile: ClientProfile, reason: str, resolve: Resolver | None = None
    ) -> Portal | None:
        """Return the portal that makes a leg of ``profile`` fail with ``reason``; None if there is none.

        ``resolve`` finds addresses when the host's own resolver is that of the tunnel.
        """
        if not probe_ports(profile) or not may_be_portal(reason):
            self._known = None
            return None
        if self._asked is not None and self._clock() - self._asked < PROBE_INTERVAL:
            return self._known
        host, name = _front(profile)
        head = await self._ask(profile, host, name, resolve)
        self._asked = self._clock()
        self._known = None if head is None else judge(head, (host, name), reason=reason)
        if self._known is not None:
            self._counters.count("portals-found")
        return self._known

    async def _ask(
        self, profile: ClientProfile, host: str, name: str, resolve: Resolver | None
    ) -> bytes | None:
        """Return the head of the answer on port 80; None if there is none in time."""
        self._counters.count("portal-probes")
        mark = profile.routes.mark
        own = RoadResolver(mark, self._counters, only_directly=traffic_policy(profile) is not None)
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                if resolve is None:
                    await own.learn()
                sock = await connect(host, PROBE_PORT, resolver=resolve or own.resolve, mark=mark)
                with sock:
                    loop = asyncio.get_running_loop()
                    await loop.sock_sendall(sock, _request(name))
                    reader = HeadReader()
                    while data := await loop.sock_recv(sock, _READ_SIZE):
                        whole = reader.feed(data)
                        if whole is not None:
                            return whole[0]
        except (TimeoutError, HalfTunnelError, OSError):
            self._counters.drop("portal-probe-unanswered")
        finally:
            own.close()
        return None


def _front(profile: ClientProfile) -> tuple[str, str]:
    """Return the host of the first upstream URL, and the name that its TLS shows to an observer."""
    road = profile.upstream
    host = urlsplit(road.urls[0]).hostname or ""
    return host, road.tls.server_name or host


def _request(name: str) -> bytes:
    """Return a plain request like that of a browser. Some portals answer no other."""
    lines = ["GET / HTTP/1.1", f"Host: {bracketed(name)}", f"User-Agent: {USER_AGENT}", "Accept: */*"]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode()


def _host_of(location: str) -> str | None:
    """Return the host of a URL; None for a path without host, or a name that must not be shown."""
    try:
        host = urlsplit(location).hostname
    except ValueError:
        return None
    return host if host and _HOST.fullmatch(host) else None


def _is_same_site(one: str, other: str) -> bool:
    """Return whether two hosts belong together: equal last two labels, or equal addresses."""
    one, other = one.rstrip(".").lower(), other.rstrip(".").lower()
    if one == other or _is_address(one) or _is_address(other):
        return one == other
    return one.split(".")[-2:] == other.split(".")[-2:]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
