"""Captive portals: does somebody in this network answer in the place of the roads?

No third party is asked. When a road fails as it does behind a portal, its own host is asked for a page on
port 80, in the clear and on a marked socket: a portal answers with a way to itself. Nothing is said there
that a failed leg has not said before: the address, and the name that TLS shows.
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
"""Seconds from the name to the end of the answer's head."""

PROBE_INTERVAL: Final = 15.0
"""Seconds between two questions at least; what was found holds meanwhile."""

RETRY_DELAY: Final = 5.0
"""Seconds between two attempts at a tunnel at most, while a portal is known: somebody is signing in."""

NETWORK_AUTHENTICATION_REQUIRED: Final = 511
"""The status that says it outright (RFC 6585, section 6)."""

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
    """A captive portal. ``host`` is where it sends browsers to, None when it does not say.

    ``is_sure``: not, when all that is known is that somebody else answers for the exit.
    """

    host: str | None = None
    is_sure: bool = True

    def sentence(self, failure: str, *, is_shut: bool, goes_on: bool) -> str:
        """What to do about it; ``failure`` is what the road said.

        ``is_shut``: browsers do not reach it. ``goes_on``: the tunnel is tried again.
        """
        where = f" (it sends to {self.host})" if self.host else ""
        opened = "run `htvpn portal`, " if is_shut else ""
        then = "the tunnel comes up by itself" if goes_on else "then run `htvpn up` again"
        what = "A captive portal stands" if self.is_sure else "A captive portal seems to stand"
        advice = f"{what} in the way{where}: {opened}open any http:// page in a browser, sign in; {then}."
        return advice if self.is_sure else f"{advice} If there is no such page: {failure}"


def smells(reason: str) -> bool:
    """Whether roads fail for this reason behind a portal, among others."""
    return reason in _SMELLS or reason.startswith("http-status-")


def judge(head: bytes, names: tuple[str, ...], *, reason: str) -> Portal | None:
    """What the head of the answer on port 80 means, of a host that has these names; None: no portal.

    ``reason`` is why the leg to the same host failed. A way to another host of the same site is that
    site's own.
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
    """Asks when it is worth asking, and remembers the answer. ``clock`` gives seconds."""

    def __init__(self, counters: Counters, clock: Callable[[], float]) -> None:
        self._counters = counters
        self._clock = clock
        self._asked: float | None = None
        self._known: Portal | None = None

    def forget(self) -> None:
        """The road works, or it is another one: ask anew next time."""
        self._asked = self._known = None

    async def look(
        self, profile: ClientProfile, reason: str, resolve: Resolver | None = None
    ) -> Portal | None:
        """The portal because of which a road of ``profile`` fails for ``reason``, if that is why.

        ``resolve`` finds addresses where the host's own resolver is a tunnel's.
        """
        if not probe_ports(profile) or not smells(reason):
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
        """The head of the answer on port 80; None when there is none in time."""
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
    """The host of the first road, and the name that whoever watches it reads in TLS."""
    road = profile.upstream
    host = urlsplit(road.urls[0]).hostname or ""
    return host, road.tls.server_name or host


def _request(name: str) -> bytes:
    """As plain as a browser's; some portals answer only those."""
    lines = ["GET / HTTP/1.1", f"Host: {bracketed(name)}", f"User-Agent: {USER_AGENT}", "Accept: */*"]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode()


def _host_of(location: str) -> str | None:
    """The host of a URL; None for a path alone, and for what nobody should be shown."""
    try:
        host = urlsplit(location).hostname
    except ValueError:
        return None
    return host if host and _HOST.fullmatch(host) else None


def _is_same_site(one: str, other: str) -> bool:
    """Whether two hosts are one's own: their last two labels are the same, or all of an address."""
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
