"""A client without a TUN device: a connection to the exit, and the streams of a proxy through it.

Nothing on the host is changed, and no privilege is needed.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

from halftunnel_vpn.client.connection import ConnectionOwner
from halftunnel_vpn.client.exits.exit_link import Dialling, ExitLink
from halftunnel_vpn.client.host.address_memory import AddressMemory
from halftunnel_vpn.client.host.road_resolver import RoadResolver
from halftunnel_vpn.client.settings import dial_options
from halftunnel_vpn.client.tunnel_numbers import TunnelNumbers
from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.config.exits import RoadConfig
from halftunnel_vpn.control.status_schema import TunnelState
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.protocol.handshake_payloads import ExitHello
from halftunnel_vpn.protocol.interfaces import ProxyPort, StreamOpener
from halftunnel_vpn.protocol.trace_ports import NO_TRACING, Tracing
from halftunnel_vpn.transport.dial import DialOptions
from halftunnel_vpn.transport.driver import Driver
from halftunnel_vpn.transport.faults import endless

log = logging.getLogger(__name__)


class UserspaceClient:
    """One connected profile. :meth:`run` lasts until :meth:`stop`.

    ``make_proxy`` creates the user of the streams. ``state_dir`` is where times, addresses and intervals are
    kept over a restart; None: nowhere. ``ready`` is called once, when the proxy serves.
    """

    def __init__(
        self,
        profile: ClientProfile,
        driver: Driver,
        counters: Counters,
        *,
        make_proxy: Callable[[StreamOpener], ProxyPort],
        state_dir: Path | None,
        ready: Callable[[], None] = lambda: None,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self._profile = profile
        self._driver = driver
        self._ready = ready
        self._stopping = asyncio.Event()
        self._resolver = RoadResolver(
            None, counters, memory=None if state_dir is None else AddressMemory(state_dir)
        )
        self._link = ExitLink(
            profile,
            driver,
            counters,
            ConnectionOwner(self._session_made, session_lost=lambda now: None),
            Dialling(self._resolver, self._dial_options, state_dir, tracing),
        )
        self._connection = self._link.connection
        self.proxy = make_proxy(self._connection)

    @property
    def is_connected(self) -> bool:
        """Whether both directions carry data."""
        return self._connection.state is TunnelState.CONNECTED

    def numbers(self) -> TunnelNumbers:
        """Return what the metrics say of the connection."""
        return self._connection.numbers({})

    def stop(self) -> None:
        """Make :meth:`run` return."""
        self._stopping.set()

    def reconnect(self) -> None:
        """Replace every leg at once. Without a session, the next attempt begins now."""
        self._link.reconnect()

    async def run(self) -> None:
        """Connect, serve, and keep the connection up.

        Raises HostError when an address is taken, RoadError or HandshakeError when it never connected.
        """
        self.proxy.open()
        try:
            self._link.start()
            async with asyncio.TaskGroup() as tasks:
                stopping = tasks.create_task(self._serve())
                await self._stopping.wait()
                stopping.cancel()
            await self._connection.drain()
        finally:
            self.proxy.close()
            self._link.close()

    async def _serve(self) -> None:
        await self._link.establish()
        self.proxy.serve()
        log.info("the proxy is up", extra=self._connection.log_fields)
        self._ready()
        await endless(self._link.run(), "the connection")

    def _session_made(self, hello: ExitHello) -> None:
        self.proxy.session_made(self._driver.clock())

    def _dial_options(self, road: RoadConfig) -> DialOptions:
        # A mark needs CAP_NET_ADMIN, and there is no tunnel to bypass.
        return dataclasses.replace(dial_options(self._profile, road, self._resolver), mark=None)
