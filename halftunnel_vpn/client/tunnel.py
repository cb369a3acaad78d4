"""The tunnel of this host: the TUN device, the flow tracker and the host's routes around it."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from halftunnel_vpn import __version__
from halftunnel_vpn.client.address_memory import AddressMemory
from halftunnel_vpn.client.connection import Connection
from halftunnel_vpn.client.connector import Connector, NewSession
from halftunnel_vpn.client.dns_forward import DnsForwarder
from halftunnel_vpn.client.handshake_clock import HandshakeClock, TimestampMemory
from halftunnel_vpn.client.host_watch import HostWatch
from halftunnel_vpn.client.keepalive_memory import KeepaliveMemory
from halftunnel_vpn.client.road_resolver import RoadResolver
from halftunnel_vpn.client.serial_thread import HostTurn
from halftunnel_vpn.client.settings import (
    dial_options,
    dns_config,
    flow_config,
    host_state,
    traffic_policy,
)
from halftunnel_vpn.client.status import dns_status, road_status
from halftunnel_vpn.client.tamper_watch import Mender
from halftunnel_vpn.config.client import ClientProfile, RoadConfig
from halftunnel_vpn.control.status import ProtectionStatus, RoadStatus, Status, TunnelState
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.dns.service import DnsService
from halftunnel_vpn.dns.upstream import DirectResolvers
from halftunnel_vpn.errors import HostError
from halftunnel_vpn.flow.tracker import FlowTracker
from halftunnel_vpn.host.firewall import TrafficPolicy
from halftunnel_vpn.host.journal import state_directory
from halftunnel_vpn.host.network import HostNetwork
from halftunnel_vpn.host.preflight import device_exists, preflight
from halftunnel_vpn.protocol.handshake_payloads import ExitHello
from halftunnel_vpn.protocol.keys import Direction, KeyPair
from halftunnel_vpn.session.intervals import IntervalTable
from halftunnel_vpn.transport.connect import Resolver
from halftunnel_vpn.transport.dial import DialOptions
from halftunnel_vpn.transport.driver import Driver
from halftunnel_vpn.transport.faults import endless
from halftunnel_vpn.transport.kernel.scheduling import give_way
from halftunnel_vpn.tun.device import TunDevice

FRAMES_PER_WAKE = 256
"""Frames read from the TUN device before other events get their turn."""

log = logging.getLogger(__name__)


class Tunnel:
    """One profile, up: :meth:`run` connects, changes the host, carries its traffic, puts everything back.

    ``changed`` is called whenever :attr:`phase` may have changed.
    """

    def __init__(
        self, profile: ClientProfile, driver: Driver, counters: Counters, *, changed: Callable[[], None]
    ) -> None:
        self.profile = profile
        self.counters = counters
        self._changed = changed
        self._policy = traffic_policy(profile, tunnel=profile.tun.name)
        self._policy_after = traffic_policy(profile)
        self._owns_table = False
        self._in_turn = HostTurn()
        self._device: TunDevice | None = None
        self._mender = Mender(self.mend, self.counters)
        self.connected = asyncio.Event()
        self._driver = driver
        self._started = driver.clock()
        self._stop = asyncio.Event()
        self._failure: HostError | None = None
        self._is_closing = False
        self._resolver = RoadResolver(
            profile.routes.mark,
            self.counters,
            only_directly=self._policy is not None,
            memory=AddressMemory(state_directory()),
        )
        keys = KeyPair(profile.client.private_key)
        memory = TimestampMemory(state_directory(), keys.public, profile.exit.public_key)
        self._connector = Connector(profile, self._dial_options, self.counters, HandshakeClock(memory))
        limits = profile.limits
        self._intervals = IntervalTable(limits.keepalive, limits.keepalive_longest)
        self._connection = Connection(
            profile,
            self._connector,
            driver,
            self.counters,
            session_made=self._session_made,
            session_lost=self._session_lost,
            legs_changed=changed,
            intervals=self._intervals,
        )
        config = dns_config(profile)
        self._dns = DnsService(
            config,
            DnsForwarder(self._connection, driver.clock),
            DirectResolvers(counters=self.counters, mark=profile.routes.mark),
            driver.clock,
            self.counters,
            first_fake=int.from_bytes(secrets.token_bytes(2), "big"),
        )
        self._tracker: FlowTracker | None = None
        self._network: HostNetwork | None = None
        self._watch: HostWatch | None = None
        self._seen_state, self._seen_since = TunnelState.CONNECTING, time.time()

    # --- life ------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Have :meth:`run` put everything back and return."""
        self._stop.set()

    async def run(self) -> None:
        """Up until :meth:`stop`. Raises HostError, RoadError or HandshakeError when it does not come up."""
        device_name = self.profile.tun.name
        state_dir = state_directory()
        after = self._policy_after
        for left in await asyncio.to_thread(HostNetwork.cleanup_leftovers, state_dir, after=after):
            log.warning("restored what an earlier tunnel had left on this host: %s", left)
        preflight(device_name)
        stopped = asyncio.ensure_future(self._stopped())
        memory = KeepaliveMemory(self._intervals, state_dir, self._driver)
        memory.start()
        try:
            established = await self._first_session(stopped)
            if established is None:
                return
            await self._carry(established, state_dir, stopped)
        finally:
            stopped.cancel()
            self._resolver.close()
            self._connection.close()
            memory.stop()

    async def _stopped(self) -> None:
        await self._stop.wait()

    async def _first_session(self, stopped: asyncio.Future[None]) -> NewSession | None:
        """The first handshake, before anything on the host is touched; None when told to stop meanwhile."""
        attempt = asyncio.ensure_future(self._establish())
        await asyncio.wait((attempt, stopped), return_when=asyncio.FIRST_COMPLETED)
        if not attempt.done():
            attempt.cancel()
            await asyncio.gather(attempt, return_exceptions=True)
            return None
        return await attempt

    async def _establish(self) -> NewSession:
        await self._resolver.learn()
        return await self._connection.establish()

    async def _carry(self, established: NewSession, state_dir: Path, stopped: asyncio.Future[None]) -> None:
        profile = self.profile
        self._device = device = TunDevice.open(profile.tun.name, mtu=profile.tun.mtu, counters=self.counters)
        try:
            self._tracker = tracker = FlowTracker(
                device.write,
                self._connection,
                self._dns,
                flow_config(profile),
                segments=device.uso,
                wheel=self._driver.wheel,
                random=secrets.token_bytes,
                clock=self._driver.clock,
                counters=self.counters,
                give_way=give_way,
            )
            self._network = network = HostNetwork(
                host_state(profile, has_ipv6=established.exit_hello.has_ipv6),
                state_dir,
                policy=self._policy,
                after=self._policy_after,  # whoever runs this puts in place what holds afterwards
            )
            self._watch = watch = HostWatch(
                profile, network, self._connection, self._resolver, self._driver, self.counters, self._in_turn
            )
            self._readable = self._reader(device, tracker)
            self._driver.loop.add_reader(device.fd, self._readable)
            async with asyncio.TaskGroup() as tasks:
                dns = tasks.create_task(endless(self._dns.run(), "the DNS service"))
                connection = tasks.create_task(endless(self._connection.run(), "the connection"))
                mender = None
                try:
                    self._owns_table = True
                    self._resolver.host_is_taken()
                    for warning in await self._in_turn(network.apply):
                        log.warning("%s", warning)
                    tasks.create_task(watch.run())
                    mender = tasks.create_task(endless(self._mender.run(), "the watch over the host"))
                    self.connected.set()
                    log.info("the tunnel is up", extra=self._connection.log_fields)
                    self._changed()
                    await stopped
                    self._is_closing = True
                    self._stop_reading(device)
                    await self._connection.drain()
                finally:
                    self._is_closing = True
                    tracker.session_lost(self._driver.clock())  # while the device still takes an RST
                    await asyncio.shield(watch.stop())
                    if mender is not None:
                        mender.cancel()
                    await self._in_turn(network.cleanup)
                    self._owns_table = False
                    connection.cancel()
                    self._dns.close()
                    dns.cancel()
        finally:
            self._stop_reading(device)
            tracker_left, self._tracker = self._tracker, None
            if tracker_left is not None:
                tracker_left.session_lost(self._driver.clock())
            device.close()
            self._device = None
        if self._failure is not None:
            raise self._failure

    def _reader(self, device: TunDevice, tracker: FlowTracker) -> Callable[[], None]:
        """What is done when the host has sent something: read a batch, then let it go in few trains."""
        clock, connection, loop = self._driver.clock, self._connection, self._driver.loop
        read_burst, frame_arrived, flush = device.read_burst, tracker.frame_arrived, tracker.flush

        def readable() -> None:
            now = clock()
            try:
                frames = read_burst(FRAMES_PER_WAKE)
            except HostError as error:
                log.warning("%s", error)
                self._stop_reading(device)
                self._mender.wake()
                return
            for frame in frames:
                try:
                    frame_arrived(frame, now)
                except Exception as error:  # a fault with one frame: the others of the batch go on
                    loop.call_exception_handler({"message": "a frame of the host failed", "exception": error})
            flush(now)
            connection.pump.flush()

        return readable

    # --- the host, kept as it should be ----------------------------------------------------------

    async def change_policy(self, policy: TrafficPolicy | None, after: TrafficPolicy | None) -> None:
        """What may leave outside the tunnel from now on, and once it has gone. Raises HostError."""
        self._policy, self._policy_after = policy, after
        network = self._network
        if network is not None and not self._is_closing:
            network.policy, network.after = policy, after
            await self._in_turn(network.apply)

    @property
    def owns_table(self) -> bool:
        """Whether the nft table is the tunnel's own now, with the policy in it."""
        return self._owns_table

    def reconnect(self) -> None:
        """Replace every leg at once; without a session, the next attempt begins now."""
        self._connection.reconnect()

    async def mend(self) -> list[str]:
        """Put right what somebody else has changed since; what that was, a sentence each."""
        network, device = self._network, self._device
        if network is None or device is None or self._is_closing:
            return []
        found = await self._in_turn(network.kernel_differences)
        if not found or self._is_closing:
            return []
        work: Callable[[], object] = network.mend_kernel
        if not device_exists(device.name):
            work = network.apply  # what resolved knew of the device went with it
            self.counters.count("device-reopened")
            self._stop_reading(device)
            try:
                device.reopen()
            except HostError as error:
                self._failure = error
                self.stop()
                return found
            self._driver.loop.add_reader(device.fd, self._readable)
        await self._in_turn(work)
        return found

    def _stop_reading(self, device: TunDevice) -> None:
        if device.fd >= 0:
            self._driver.loop.remove_reader(device.fd)

    # --- what the connection tells ---------------------------------------------------------------

    def _session_made(self, hello: ExitHello) -> None:
        self._dns.forget()
        self._dns.set_ipv6(hello.has_ipv6)
        if self._watch is not None:
            self._watch.exit_changed(has_ipv6=hello.has_ipv6)

    def _session_lost(self, now: float) -> None:
        if self._tracker is not None:
            self._tracker.session_lost(now)

    async def adopt_program(self, pid: int, programs: str) -> None:
        """Have a process and its children go outside (``excluded``) or inside (``only``). Or HostError."""
        if self._network is None or not self.connected.is_set():
            raise HostError("The tunnel is not up: connect first.")
        await asyncio.to_thread(self._network.adopt_program, pid, programs)

    @property
    def resolve(self) -> Resolver:
        """Finds the roads' hosts outside the tunnel."""
        return self._resolver.resolve

    @property
    def is_cut_off(self) -> bool:
        """Whether it was up, and no leg of either direction is left."""
        return self.phase is TunnelState.RECONNECTING and len(self._connection.lost_directions) == len(
            Direction
        )

    def _dial_options(self, road: RoadConfig) -> DialOptions:
        return dial_options(self.profile, road, self._resolver)

    # --- what it says of itself ------------------------------------------------------------------

    @property
    def phase(self) -> TunnelState:
        """``connecting``, ``connected``, ``reconnecting`` or ``disconnecting``."""
        if self._is_closing:
            return TunnelState.DISCONNECTING
        return self._connection.state if self.connected.is_set() else TunnelState.CONNECTING

    def flow_counts(self) -> dict[str, int]:
        """Flows that are open now, by kind."""
        if self._tracker is None:
            return {"tcp": 0, "udp": 0, "icmp": 0}
        return asdict(self._tracker.counts)

    def status(self) -> Status:
        """As ``control/status.py`` describes it; without a kill switch, which is the daemon's."""
        session = self._connection.session
        state = self.phase
        if state != self._seen_state:
            self._seen_state, self._seen_since = state, time.time()
        roads = {direction: self._road_status(direction) for direction in Direction}
        return Status(
            version=__version__,
            state=state,
            since=self._seen_since,
            sentence=None,
            profile=self.profile.name,
            pid=os.getpid(),
            uptime=self._driver.clock() - self._started,
            device=self.profile.tun.name,
            session=self._connection.session_number,
            round_trip=session.round_trip if session is not None else None,
            upstream=roads[Direction.UPSTREAM],
            downstream=roads[Direction.DOWNSTREAM],
            lost=[direction.name.lower() for direction in self._connection.lost_directions],
            notices=self._connector.clock.notices,
            flows=self.flow_counts(),
            dns=dns_status(
                self.profile.dns.mode,
                self._network.resolver_kind if self._network is not None else None,
                self._dns.cache_entries,
                self.counters,
            ),
            protection=ProtectionStatus(
                kill_switch="off", active=False, verified=False, inbound=self.profile.routes.inbound
            ),
            dropped=dict(self.counters.dropped),
        )

    def _road_status(self, direction: Direction) -> RoadStatus:
        session = self._connection.session
        legs = session.legs_of(direction) if session is not None else []
        urls = self._connector.road(direction).urls
        return road_status(direction, urls, legs, self.counters, self._driver.clock())
