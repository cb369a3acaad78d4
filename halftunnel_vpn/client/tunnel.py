"""The tunnel of this host: the TUN device, the flow tracker and the host's routes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Literal, NamedTuple

from halftunnel_vpn.client.companions import ALONE, Companions
from halftunnel_vpn.client.connection import ConnectionOwner
from halftunnel_vpn.client.device_reader import DeviceReader
from halftunnel_vpn.client.dns_forward import make_dns_service
from halftunnel_vpn.client.exits.exit_link import Dialling, ExitLink
from halftunnel_vpn.client.exits.exit_ranking import BY_PRIORITY, ExitChoice
from halftunnel_vpn.client.first_session import first_session
from halftunnel_vpn.client.host.address_memory import AddressMemory
from halftunnel_vpn.client.host.host_port import HostPort
from halftunnel_vpn.client.host.host_watch import HostWatch
from halftunnel_vpn.client.host.road_resolver import RoadResolver
from halftunnel_vpn.client.host.serial_thread import to_its_end
from halftunnel_vpn.client.legs.new_session import NewSession
from halftunnel_vpn.client.settings import dial_options, flow_config, host_state, traffic_policy
from halftunnel_vpn.client.tunnel_numbers import TunnelNumbers
from halftunnel_vpn.client.tunnel_status import dns_status, tunnel_status
from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.config.exits import RoadConfig
from halftunnel_vpn.control.status_schema import ExitOverview, Status, TunnelState
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import HostError
from halftunnel_vpn.flow.flow_context import FlowContext
from halftunnel_vpn.flow.flow_ends import FlowEnds
from halftunnel_vpn.flow.tracker import FlowCounts, FlowTracker
from halftunnel_vpn.host.record.journal import state_directory
from halftunnel_vpn.protocol.handshake_payloads import ExitHello
from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.transport.connect import Resolver
from halftunnel_vpn.transport.dial import DialOptions
from halftunnel_vpn.transport.driver import Driver
from halftunnel_vpn.transport.faults import endless
from halftunnel_vpn.transport.kernel.scheduling import give_way
from halftunnel_vpn.tun.device import TunDevice

log = logging.getLogger(__name__)


class TunnelOptions(NamedTuple):
    """What a tunnel is given beside its profile."""

    # Sentences for the status.
    notices: Sequence[str] = ()
    companions: Companions = ALONE
    # Which exits may be used.
    choice: ExitChoice = BY_PRIORITY


class Tunnel:
    """One profile that is up. :meth:`run` connects, changes the host, carries its traffic, restores the host.

    ``changed`` is called whenever :attr:`phase` may have changed.
    """

    def __init__(
        self,
        profile: ClientProfile,
        driver: Driver,
        host: HostPort,
        counters: Counters,
        *,
        changed: Callable[[], None],
        options: TunnelOptions,
    ) -> None:
        self.profile = profile
        self._notices = options.notices
        self.counters = counters
        self._changed = changed
        self._host = host
        self._device: TunDevice | None = None
        self._reader: DeviceReader | None = None
        self.connected = asyncio.Event()
        self._driver = driver
        self._started = driver.clock()
        self._stop = asyncio.Event()
        self._failure: HostError | None = None
        self._is_closing = False
        self._resolver = RoadResolver(
            profile.routes.mark,
            self.counters,
            only_directly=traffic_policy(profile) is not None,
            memory=AddressMemory(state_directory()),
        )
        companions = options.companions
        self._telemetry = companions.telemetry
        self._link = ExitLink(
            profile,
            driver,
            self.counters,
            ConnectionOwner(self._session_made, self._session_lost, changed),
            Dialling(self._resolver, self._dial_options, state_directory(), self._telemetry),
            options.choice,
        )
        self._connection = self._link.connection
        self._dns = make_dns_service(profile, self._connection, driver.clock, self.counters)
        # What serves programs of this host by SOCKS and HTTP beside the device.
        self._proxy = companions.make_proxy(profile, self._connection, driver, counters)
        self._tracker: FlowTracker | None = None
        self._watch: HostWatch | None = None
        self._seen_state, self._seen_since = TunnelState.CONNECTING, time.time()

    # --- life ------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Make :meth:`run` restore the host and return."""
        self._stop.set()

    async def run(self) -> None:
        """Run until :meth:`stop`. Raises HostError, RoadError or HandshakeError if it does not come up."""
        device = self.profile.tun.name
        if self._host.has_records:  # what was left may lead names and legs astray
            await self._host.prepare(device)
        else:
            self._host.preflight_for(device)
        stopped = asyncio.create_task(self._stop.wait())
        self._link.start()
        try:
            self._telemetry.start(self.profile.telemetry)
            if self._proxy is not None:
                self._proxy.open()
            established = await first_session(self._host.prepare(device), self._link.establish(), stopped)
            if established is None:
                return
            await self._carry(established, stopped)
        finally:
            stopped.cancel()
            self._telemetry.close()
            self._close_proxy()
            self._link.close()

    async def _carry(self, established: NewSession, stopped: asyncio.Task[Literal[True]]) -> None:
        """Carry the host's traffic until ``stopped``. Undo the steps in reverse order."""
        profile, host = self.profile, self._host
        async with contextlib.AsyncExitStack() as undo:
            self._device = device = host.open_device(
                profile.tun.name, mtu=profile.tun.mtu, counters=self.counters
            )
            undo.callback(self._close_device, device)
            self._tracker = tracker = self._make_tracker(device)
            self._reader = reader = DeviceReader(
                device,
                tracker,
                self._driver,
                failed=host.check,
            )
            reader.start()
            tasks = await undo.enter_async_context(asyncio.TaskGroup())
            undo.callback(tasks.create_task(endless(self._dns.run(), "the DNS service")).cancel)
            undo.callback(tasks.create_task(endless(self._link.run(), "the connection")).cancel)
            undo.callback(self._dns.close)
            self._resolver.host_is_taken()
            self._watch = watch = HostWatch(
                profile, host, self._link, self._resolver, self._driver, self.counters, self._reopen
            )
            undo.push_async_callback(host.leave)
            undo.push_async_callback(to_its_end, watch.stop)
            undo.callback(self._begin_closing)
            await host.enter(host_state(profile, has_ipv6=established.exit_hello.has_ipv6), self._reopen)
            tasks.create_task(watch.run())
            undo.callback(self._close_proxy)
            undo.push_async_callback(self._telemetry.flush)
            self._telemetry.release()  # what it sends goes through the tunnel, like that of any program
            if self._proxy is not None:
                self._proxy.serve()
            self.connected.set()
            log.info("the tunnel is up", extra=self._connection.log_fields)
            self._changed()
            await stopped
            self._is_closing = True
            reader.stop()
            await self._connection.drain()
        if self._failure is not None:
            raise self._failure

    def _close_proxy(self) -> None:
        if self._proxy is not None:
            self._proxy.close()

    def _make_tracker(self, device: TunDevice) -> FlowTracker:
        return FlowTracker(
            FlowContext(
                write=device.write,
                segments=device.uso,
                dns=self._dns,
                wheel=self._driver.wheel,
                counters=self.counters,
                clock=self._driver.clock,
                random=secrets.token_bytes,
                give_way=give_way,
            ),
            self._connection,
            flow_config(self.profile),
        )

    def _begin_closing(self) -> None:
        self._is_closing = True
        if self._tracker is not None:
            self._tracker.session_lost(self._driver.clock())  # while the device still accepts an RST

    def _close_device(self, device: TunDevice) -> None:
        if self._reader is not None:
            self._reader.stop()
        tracker, self._tracker = self._tracker, None
        if tracker is not None:
            tracker.session_lost(self._driver.clock())
        device.close()
        self._device = None

    # --- the host ----------------------------------------------------------------------------------

    def reconnect(self) -> None:
        """Replace every leg at once. Without a session, the next attempt begins now."""
        self._link.reconnect()

    def choose(self, choice: ExitChoice) -> asyncio.Future[str]:
        """Use another exit, or another order. The result is the name of the exit in use, or a HostError."""
        return self._link.choose(choice)

    async def measure_exits(self) -> list[ExitOverview]:
        """Measure the round trip of every exit, and return what is known of each."""
        await self._link.exits.measure()
        return self._link.statuses()

    def _reopen(self) -> bool:
        """Open the device again after a program has removed it. End the tunnel if that fails."""
        device, reader = self._device, self._reader
        if device is None or reader is None or self._is_closing:
            return False
        reader.stop()
        try:
            device.reopen()
        except HostError as error:
            self._failure = error
            self.stop()
            return False
        reader.start()
        return True

    # --- events of the connection ----------------------------------------------------------------

    def _session_made(self, hello: ExitHello) -> None:
        self._dns.forget()
        self._dns.set_ipv6(hello.has_ipv6)
        if self._proxy is not None:
            self._proxy.session_made(self._driver.clock())
        if self._watch is not None:
            self._watch.exit_changed(has_ipv6=hello.has_ipv6)

    def _session_lost(self, now: float) -> None:
        if self._tracker is not None:
            self._tracker.session_lost(now)

    async def adopt_program(self, pid: int, programs: str) -> None:
        """Put a process and its children outside (``excluded``) or inside (``only``). Raises HostError."""
        if not self.connected.is_set():
            raise HostError("The tunnel is not up: run `htvpn up` first.")
        await self._host.ask(lambda host: host.adopt_program(pid, programs))

    def record(self, seconds: float) -> str:
        """Write down every record for ``seconds``; return the file. Raises HostError."""
        return str(self._connection.record(state_directory(), seconds))

    @property
    def resolve(self) -> Resolver:
        """Resolves the exit's names outside the tunnel."""
        return self._resolver.resolve

    @property
    def is_cut_off(self) -> bool:
        """Whether it was up and no leg of either direction is left."""
        lost = self._connection.lost_directions
        return self.phase is TunnelState.RECONNECTING and len(lost) == len(Direction)

    def _dial_options(self, road: RoadConfig) -> DialOptions:
        return dial_options(self.profile, road, self._resolver)

    # --- status ----------------------------------------------------------------------------------

    @property
    def phase(self) -> TunnelState:
        """``connecting``, ``connected``, ``reconnecting`` or ``disconnecting``."""
        if self._is_closing:
            return TunnelState.DISCONNECTING
        return self._connection.state if self.connected.is_set() else TunnelState.CONNECTING

    def numbers(self) -> TunnelNumbers:
        """What the metrics say of it."""
        return self._connection.numbers(self._flow_counts())

    def _flow_counts(self) -> dict[str, int]:
        return asdict(FlowCounts(0, 0, 0) if self._tracker is None else self._tracker.counts)

    def open_flows(self, limit: int) -> list[FlowEnds]:
        """Return the ends of at most ``limit`` open flows."""
        return [] if self._tracker is None else self._tracker.ends(limit)

    def status(self) -> Status:
        """Return the status as ``control/status_schema.py`` describes it. Without the kill switch."""
        state, now = self.phase, self._driver.clock()
        if state != self._seen_state:
            self._seen_state, self._seen_since = state, time.time()
        self.counters.refresh()
        status = tunnel_status(self.profile, self._link, self.counters, state, now)
        status["since"] = self._seen_since
        status["uptime"] = now - self._started
        status["notices"] = [*self._notices, *status.get("notices", ())]
        status["flows"] = self._flow_counts()
        mode = self.profile.dns.mode
        status["dns"] = dns_status(mode, self._host.resolver_kind, self._dns.cache_entries, self.counters)
        return status
