"""Whether an exit can do its work: what ``/readyz`` answers, and the metric ``halftunnel_ready``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from halftunnel_vpn.config.net import Endpoint
from halftunnel_vpn.config.server import ServerConfig
from halftunnel_vpn.dns.upstream import UpstreamResolver
from halftunnel_vpn.errors import DnsError
from halftunnel_vpn.server.exit_files import Place, served
from halftunnel_vpn.server.exit_service import egress_addresses
from halftunnel_vpn.transport.listen import Listener

CHECK_INTERVAL: Final = 30.0
"""Seconds between two checks that nobody asks for."""

CHECK_AGE: Final = 5.0
"""Seconds for which the outcome of a check is good for another request."""

CHECK_TIMEOUT: Final = 5.0
"""Seconds that one check may take."""

CERTIFICATE_LEFT: Final = 7 * 86400.0
"""Seconds for which a certificate must still be valid."""

ASKED_NAME: Final = "a.root-servers.net"
"""The name that a resolver is asked for. That it does not exist is an answer as well."""

Check = Callable[[], Awaitable[str | None]]
"""Returns what is wrong in one sentence, None when nothing is."""


class Readiness:
    """Makes ``checks``, by name, when asked and every CHECK_INTERVAL; outcomes are kept for CHECK_AGE."""

    def __init__(self, checks: Mapping[str, Check], clock: Callable[[], float]) -> None:
        self._checks = checks
        self._clock = clock
        self._found: dict[str, str | None] = {}
        self._checked_at = float("-inf")
        self._lock = asyncio.Lock()

    async def problems(self) -> list[str]:
        """Return what is wrong, a line for each check that does not pass."""
        async with self._lock:  # many requests make one check
            if self._clock() - self._checked_at >= CHECK_AGE:
                names = list(self._checks)
                outcomes = await asyncio.gather(*(_outcome(self._checks[name]) for name in names))
                self._found = dict(zip(names, outcomes, strict=True))
                self._checked_at = self._clock()
        return [f"{name}: {problem}" for name, problem in self._found.items() if problem is not None]

    def outcomes(self) -> dict[str, float]:
        """Return 1 for each check that passed when it was made last, and 0 for the others."""
        return {name: float(problem is None) for name, problem in self._found.items()}

    async def run(self) -> None:
        """Check again and again, so that the metric is recent."""
        while True:
            await self.problems()
            await asyncio.sleep(CHECK_INTERVAL)


async def _outcome(check: Check) -> str | None:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT):
            return await check()
    except TimeoutError:
        return f"no answer within {CHECK_TIMEOUT:g} seconds"


def exit_checks(
    config: Callable[[], ServerConfig],
    listeners: Mapping[Place, Listener],
    resolver: UpstreamResolver,
    is_stopping: Callable[[], bool],
) -> dict[str, Check]:
    """Return the checks of an exit. ``config`` is the configuration in force."""

    async def check_listeners() -> str | None:
        if is_stopping():
            return "the exit stops"
        closed = [f"{host} port {port}" for (host, port), one in listeners.items() if not one.is_accepting]
        return f"nothing is accepted at {', '.join(closed)}" if closed else None

    async def check_egress() -> str | None:
        return await _egress_problem(config().metrics.probe)

    async def check_resolver() -> str | None:
        try:
            await resolver.resolve(ASKED_NAME, 4)
        except DnsError as error:
            return None if error.reason == "dns-no-such-name" else f"no resolver answers ({error.reason})"
        return None

    async def check_certificates() -> str | None:
        for path, expiry in expiries(config(), listeners).items():
            left = expiry - time.time()
            if left < CERTIFICATE_LEFT:
                return f"the certificate of {path} expires in {left / 86400:.1f} days; renew it"
        return None

    return {
        "listeners": check_listeners,
        "egress": check_egress,
        "resolver": check_resolver,
        "certificate": check_certificates,
    }


def expiries(config: ServerConfig, listeners: Mapping[Place, Listener]) -> dict[str, float]:
    """Return when the certificates of each path expire, in seconds since 1970; none without TLS."""
    found: dict[str, float] = {}
    for place, members in served(config).items():
        listener = listeners.get(place)
        if listener is not None and listener.tls is not None:
            for direction, _ in members:
                found[direction.name.lower()] = listener.tls.expiry
    return found


async def _egress_problem(probe: Endpoint | None) -> str | None:
    if probe is None:
        if any(egress_addresses().values()):
            return None
        return "there is no route to the public Internet"
    try:
        _, writer = await asyncio.open_connection(str(probe.host), probe.port)
    except OSError as error:
        return f"{probe.host} port {probe.port} cannot be reached: {error.strerror or error}"
    writer.close()
    return None
