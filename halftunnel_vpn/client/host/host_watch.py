"""What the tunnel watches on its host while it is up: the network, suspension, the resolver."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
from collections.abc import Callable
from dataclasses import replace

from halftunnel_vpn.client.exits.exit_link import ExitLink
from halftunnel_vpn.client.host.host_port import HostPort
from halftunnel_vpn.client.host.resolver_guard import ResolverGuard
from halftunnel_vpn.client.host.road_resolver import RoadResolver
from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.host import Host
from halftunnel_vpn.host.kernel.network_monitor import NetworkMonitor, SuspendWatch, Ways, changed, ways
from halftunnel_vpn.transport.driver import Driver
from halftunnel_vpn.transport.faults import endless

DEBOUNCE = 0.3
"""Seconds to wait for the rest of a change: plugging in one cable causes a dozen messages."""

RETRY_MONITOR = 10.0
"""Seconds until the next attempt when the kernel has refused to open the sockets for its messages."""

TICK = 2.0
"""The poll interval in seconds for suspension of the host."""

MAX_PLACES = 64
"""The most addresses of exits whose routes are watched."""

PROBES = ("192.0.2.1", "2001:db8::1")
"""Addresses (RFC 5737, RFC 3849) to which nothing is sent. Their route is the default route."""

log = logging.getLogger(__name__)


class HostWatch:
    """Call :meth:`run` when the tunnel has entered ``host``, and :meth:`stop` before it leaves."""

    def __init__(
        self,
        profile: ClientProfile,
        host: HostPort,
        link: ExitLink,
        resolver: RoadResolver,
        driver: Driver,
        counters: Counters,
        reopen: Callable[[], bool],
    ) -> None:
        self._host = host
        self._reopen = reopen
        self._link = link
        self._resolver = resolver
        self._counters = counters
        self._mark = profile.routes.mark
        self._guards_dns = profile.dns.mode != "off"
        self._guard = ResolverGuard(host, profile.dns.takeover, driver.clock, counters)
        self._sleep = SuspendWatch()
        self._places: dict[str, None] = {}
        self._ways: Ways = {}
        self._task: asyncio.Task[None] | None = None
        self._is_stopped = False
        self._exit_has_ipv6 = False
        self._exit_told = asyncio.Event()

    async def run(self) -> None:
        """Watch the host until :meth:`stop`."""
        self._task = asyncio.current_task()
        if self._is_stopped:
            return
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(endless(self._follow_network(), "the watch over the network"))
                tasks.create_task(endless(self._follow_exit(), "the watch over the exit's IPv6"))
                if self._guards_dns:
                    tasks.create_task(endless(self._guard.run(), "the watch over the resolver"))
        except asyncio.CancelledError:
            if not self._is_stopped:
                raise

    async def stop(self) -> None:
        """Stop. When this returns, it no longer acts on the host."""
        self._is_stopped = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    def exit_changed(self, *, has_ipv6: bool) -> None:
        """Adapt the host to the exit's IPv6: route IPv6 into the tunnel, or refuse it."""
        self._exit_has_ipv6 = has_ipv6
        self._exit_told.set()

    async def _follow_exit(self) -> None:
        while True:
            await self._exit_told.wait()
            self._exit_told.clear()
            has_ipv6 = self._exit_has_ipv6
            tunnel = self._host.tunnel
            if tunnel is None or tunnel.ipv6 == has_ipv6:
                continue
            try:
                await self._host.enter(replace(tunnel, ipv6=has_ipv6), self._reopen)
            except HostError as error:
                log.warning("the exit's IPv6 has changed, and this host could not follow: %s", error)
            else:
                log.info("the exit %s IPv6 now", "has" if has_ipv6 else "has no")

    async def _follow_network(self) -> None:
        while True:
            try:
                monitor = NetworkMonitor()
                break
            except HostError as error:
                log.warning("%s", error)
                await asyncio.sleep(RETRY_MONITOR)
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()

        def readable() -> None:
            if monitor.drain():
                woken.set()

        loop.add_reader(monitor.fd, readable)
        try:
            moved = False
            seen = await self._try_poll(moved=moved)
            while True:
                try:
                    async with asyncio.timeout(TICK):
                        await woken.wait()
                    await asyncio.sleep(DEBOUNCE)
                except TimeoutError:
                    pass
                slept = self._sleep.slept()
                if slept:
                    log.info("this host was suspended for %.0f s", slept)
                    self._counters.count("host-slept")
                moved = moved or bool(slept)
                if woken.is_set() or moved or not seen:
                    woken.clear()
                    seen = await self._try_poll(moved=moved)
                    moved = moved and not seen
        finally:
            loop.remove_reader(monitor.fd)
            monitor.close()

    async def _try_poll(self, *, moved: bool = False) -> bool:
        """Check once; return False if the kernel did not answer, so that the next tick checks again."""
        try:
            await self._poll(moved=moved)
        except HostError as error:
            if not self._counters.counted["host-watch-failures"]:
                log.warning("the network of this host cannot be followed now: %s", error)
            self._counters.count("host-watch-failures")
            return False
        return True

    async def _poll(self, *, moved: bool = False) -> None:
        """Compare the routes with those of the last check; replace the legs if they differ."""
        for leg in self._link.legs():
            with contextlib.suppress(ValueError):  # the name of a proxy
                self._places[str(ipaddress.ip_address(leg.address.partition("%")[0]))] = None
        while len(self._places) > MAX_PLACES:
            del self._places[next(iter(self._places))]
        places = tuple(self._places) or PROBES
        before, self._ways = self._ways, await self._host.ask(lambda host: ways(places, self._mark))
        if moved or changed(before, self._ways):
            await self._move()
        elif any(before.values()) and not any(self._ways.values()):
            log.warning("this host has no route out now")

    async def _move(self) -> None:
        self._counters.count("network-changes")
        log.info("the network has changed: the legs move")
        self._link.reconnect()
        if self._guards_dns:
            await self._guard.check()  # it also reads the host's present resolvers
        await self._resolver.learn(await self._host.ask(Host.own_servers))
