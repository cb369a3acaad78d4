"""A client without a TUN device: a connection to the exit, and the streams of a proxy through it.

Nothing on the host is changed, and no privilege is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from halftunnel_vpn.client.backoff import Backoff
from halftunnel_vpn.client.connection import ConnectionOwner
from halftunnel_vpn.client.exits.exit_link import Dialling, ExitLink
from halftunnel_vpn.client.host.address_memory import AddressMemory
from halftunnel_vpn.client.host.road_resolver import RoadResolver
from halftunnel_vpn.client.legs.handshake_sentences import explain, is_passing
from halftunnel_vpn.client.settings import dial_options
from halftunnel_vpn.client.tunnel_numbers import TunnelNumbers
from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.config.exits import RoadConfig
from halftunnel_vpn.control.status_schema import TunnelState
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import HandshakeError, RoadError
from halftunnel_vpn.protocol.handshake_payloads import ExitHello
from halftunnel_vpn.protocol.interfaces import ProxyPort, StreamOpener
from halftunnel_vpn.protocol.trace_ports import NO_TRACING, Tracing
from halftunnel_vpn.transport.dial import DialOptions
from halftunnel_vpn.transport.driver import Driver
from halftunnel_vpn.transport.faults import endless

log = logging.getLogger(__name__)


class StartOwner(NamedTuple):
    """Is called about the start of a client."""

    # Called once, when the proxy serves.
    ready: Callable[[], None]
    # Called after each failure before that, with a sentence and the seconds until the next attempt.
    waits: Callable[[str, float], None]


UNWATCHED = StartOwner(lambda: None, lambda sentence, seconds: None)
"""Nobody follows the start."""


class UserspaceClient:
    """One connected profile. :meth:`run` lasts until :meth:`stop`.

    ``make_proxy`` creates the user of the streams. ``state_dir`` is where times, addresses and intervals are
    kept over a restart; None: nowhere.
    """

    def __init__(
        self,
        profile: ClientProfile,
        driver: Driver,
        counters: Counters,
        *,
        make_proxy: Callable[[StreamOpener], ProxyPort],
        state_dir: Path | None,
        start: StartOwner = UNWATCHED,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self._profile = profile
        self._driver = driver
        self._start = start
        # Set when the first attempts are not to pause any longer.
        self._waiting = asyncio.Event()
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
        self._waiting.set()

    async def run(self) -> None:
        """Connect, serve, and keep the connection up.

        Raises HostError when an address is taken, HandshakeError when the exit's answer is not genuine.
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
        await self._establish()
        self.proxy.serve()
        log.info("the proxy is up", extra=self._connection.log_fields)
        self._start.ready()
        await endless(self._link.run(), "the connection")

    async def _establish(self) -> None:
        """Connect for the first time, with pauses between attempts. Raises what no further attempt cures."""
        backoff = Backoff(random.random)
        while True:
            try:
                await self._link.establish()
                return
            except (RoadError, HandshakeError) as error:
                if not is_passing(error):
                    raise
                sentence = explain(error) if isinstance(error, HandshakeError) else str(error)
            delay = backoff.next_delay()
            log.warning("%s; the next attempt is in %.0f s", sentence.rstrip("."), delay)
            self._start.waits(sentence, delay)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._waiting.wait()
            self._waiting.clear()

    def _session_made(self, hello: ExitHello) -> None:
        self.proxy.session_made(self._driver.clock())

    def _dial_options(self, road: RoadConfig) -> DialOptions:
        # A mark needs CAP_NET_ADMIN, and there is no tunnel to bypass.
        return dataclasses.replace(dial_options(self._profile, road, self._resolver), mark=None)
