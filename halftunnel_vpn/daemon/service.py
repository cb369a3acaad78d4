"""The daemon: one tunnel at a time, the state machine around it, and the commands of the control socket."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from dataclasses import dataclass, replace
from pathlib import Path

from halftunnel_vpn import __version__
from halftunnel_vpn.client.backoff import Backoff
from halftunnel_vpn.client.connector import explain
from halftunnel_vpn.client.mending import Mender
from halftunnel_vpn.client.portal import RETRY_DELAY, Portal, PortalWatch
from halftunnel_vpn.client.protection import check_alone
from halftunnel_vpn.client.settings import lockdown_policy, traffic_policy
from halftunnel_vpn.client.tunnel import Tunnel
from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.control.daemon_routes import Event, LogLine
from halftunnel_vpn.control.profile_store import ProfileStore
from halftunnel_vpn.control.status import ProtectionStatus, Status
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.daemon import portals
from halftunnel_vpn.daemon.events import Happening
from halftunnel_vpn.daemon.guard import Guard
from halftunnel_vpn.daemon.log_ring import LogRing
from halftunnel_vpn.daemon.machine import Machine, sentence_of
from halftunnel_vpn.daemon.states import STATES, Protection
from halftunnel_vpn.daemon.wanted import Wanted
from halftunnel_vpn.errors import (
    HalfTunnelError,
    HandshakeError,
    HostError,
    RoadError,
    first_leaf,
)
from halftunnel_vpn.host.firewall import TrafficPolicy
from halftunnel_vpn.host.network import HostNetwork
from halftunnel_vpn.host.preflight import preflight_host
from halftunnel_vpn.protocol.handshake import HandshakeRefused
from halftunnel_vpn.transport.driver import Driver

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Target:
    """The profile that is wanted up, and its name in the store."""

    name: str
    profile: ClientProfile


class Daemon:
    """Implements ``control.daemon_routes.DaemonPort``. :meth:`begin`, then :meth:`run` until :meth:`stop`."""

    def __init__(self, driver: Driver, store: ProfileStore, state_dir: Path, lines: LogRing) -> None:
        self.machine = Machine()
        self.counters = Counters()
        self._driver = driver
        self._store = store
        self._state_dir = state_dir
        self._lines = lines
        self._started = driver.clock()
        self._guard = Guard(state_dir)
        self._mender = Mender(self._mend_guard, self.counters)
        self._protection = Protection()
        self._switch = "off"
        self._wanted = Wanted()
        self._target: Target | None = None
        self._tunnel: Tunnel | None = None
        self._tunnel_was_told = False
        self._is_resumed = False
        self._is_stopping = False
        self._commands = asyncio.Lock()
        self._woken = asyncio.Event()
        self._settled = asyncio.Event()
        self._backoff = Backoff(random.random)
        self._portal_timer: asyncio.TimerHandle | None = None
        self._portals = PortalWatch(self.counters, driver.clock)

    # --- life ------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Take over what an earlier daemon left: its policy without a gap, and what was wanted up.

        Raises HostError when what was left cannot be read or put back.
        """
        left = self._guard.remembered()
        self._protection = Protection(wanted=left, unwanted=left)
        self._wanted = Wanted.load(self._state_dir)
        problem = None
        if self._wanted.profile is not None:
            try:
                profile = await asyncio.to_thread(self._store.load, self._wanted.profile)
            except HalfTunnelError as error:
                problem = sentence_of(error)
            else:
                self._protect(profile)
                if self._wanted.up:
                    self._target = Target(self._wanted.profile, profile)
                    self._is_resumed = True
        if self._target is not None or (self._wanted.up and left is not None):
            self.machine.on(Happening.UP)
            if self._target is None:
                self.machine.on(Happening.BLOCKED, problem)
        elif problem is not None:
            self.machine.note(problem)
        await self._enforce()
        if self._target is None:
            await self._clean_up()

    async def run(self) -> None:
        """Do what is wanted until :meth:`stop`; a kill switch that holds then is left in place."""
        async with asyncio.TaskGroup() as tasks:
            mender = tasks.create_task(self._mender.run())
            look_out = tasks.create_task(portals.look_out(self._portals, self.machine, lambda: self._tunnel))
            try:
                # A `down` that came before is carried out: a kill switch that it lifts must not stay behind.
                while not self._is_stopping or self.machine.state.name == "disconnecting":
                    target = self._target
                    if target is None:
                        await self._rest()
                    else:
                        await self._attempt(target)
            finally:
                mender.cancel()
                look_out.cancel()
                self._close_portal()

    def stop(self) -> None:
        """Have :meth:`run` put the host back and return; what is wanted is remembered for the next start."""
        self._is_stopping = True
        self._end_tunnel()

    async def _rest(self) -> None:
        """Nothing is wanted: put the host back, and wait."""
        if self.machine.state.name == "disconnecting":
            # first the deed, then the word: who hears "disconnected" finds the host as it was
            problem = await self._try_to_enforce(STATES["disconnected"].allows(self._protection))
            self.machine.on(Happening.STOPPED, problem)
        else:
            await self._enforce_or_tell()
        self._settled.set()
        await self._wait(None)

    async def _attempt(self, target: Target) -> None:
        """One tunnel, from its first dial to its end."""
        if self.machine.state.name != "connecting":
            self.machine.on(Happening.UP)
        failure: BaseException | None = None
        tunnel = Tunnel(target.profile, self._driver, changed=self._tunnel_changed)
        self._tunnel, self._woken = tunnel, asyncio.Event()
        try:
            await self._enforce()
            if self._target is target and not self._is_stopping:
                await tunnel.run()
        except BaseExceptionGroup as group:
            failure = first_leaf(group)
        except HalfTunnelError as error:
            failure = error
        finally:
            self._tunnel = None
        if failure is not None and not isinstance(failure, HalfTunnelError):
            raise failure  # a cancellation, or a fault of ours: the service manager starts us again
        if self._target is target and not self._is_stopping and isinstance(failure, HalfTunnelError):
            await self._failed(target, failure)

    async def _failed(self, target: Target, failure: HalfTunnelError) -> None:
        sentence = explain(failure) if isinstance(failure, HandshakeError) else str(failure)
        log.warning("%s", sentence)
        passing = isinstance(failure, RoadError | HandshakeRefused)
        portal = await self._look_for_portal(target, failure)
        if self._target is not target or self._is_stopping:
            return
        is_guarded = self._protection.wanted is not None
        if portal is not None:
            portals.log_portal(portal)
            goes_on = is_guarded or self._is_resumed
            sentence = portal.sentence(sentence, is_shut=is_guarded, goes_on=goes_on)
        if is_guarded:
            self.machine.on(Happening.BLOCKED, sentence)
            await self._enforce_or_tell()
        elif passing and self._is_resumed:
            if self.machine.state.name != "connecting":
                self.machine.on(Happening.UP)
            self.machine.note(sentence)
        else:
            self._target = None
            self._remember(Wanted(target.name, up=False))
            self.machine.on(Happening.FAILED, sentence)
            return
        delay = self._backoff.next_delay() if passing else None
        await self._wait(delay if delay is None or portal is None else min(delay, RETRY_DELAY))
        if self._target is target and not self._is_stopping:
            self.machine.on(Happening.RETRY)

    async def _look_for_portal(self, target: Target, failure: HalfTunnelError) -> Portal | None:
        """The captive portal because of which the tunnel has failed; no command waits for the answer."""
        reason = failure.reason if isinstance(failure, RoadError) else ""
        looking = asyncio.ensure_future(self._portals.look(target.profile, reason))
        woken = asyncio.ensure_future(self._woken.wait())
        try:
            await asyncio.wait((looking, woken), return_when=asyncio.FIRST_COMPLETED)
            return looking.result() if looking.done() else None
        finally:
            looking.cancel()
            woken.cancel()
            await asyncio.gather(looking, woken, return_exceptions=True)

    async def _wait(self, seconds: float | None) -> None:
        """Until a command comes, at most so long."""
        if self._is_stopping:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        self._woken = asyncio.Event()

    def _tunnel_changed(self) -> None:
        tunnel = self._tunnel
        if tunnel is None or self._target is None or tunnel.profile is not self._target.profile:
            return  # it is on its way out
        phase, now = tunnel.phase, self.machine.state.name
        if now == "connecting" and phase in ("connected", "reconnecting"):
            self._backoff = Backoff(random.random)
            self._portals.forget()
            self._is_resumed = True  # it has worked, so a road that fails later is worth waiting for
            self.machine.on(Happening.ESTABLISHED)
            if self._portal_timer is not None:
                self._close_portal()
            now = "connected"
        if now == "connected" and phase == "reconnecting":
            self.machine.on(Happening.LOST)
        elif now == "reconnecting" and phase == "connected":
            self.machine.on(Happening.REGAINED)

    def _end_tunnel(self) -> None:
        if self._tunnel is not None:
            self._tunnel.stop()
        self._woken.set()

    # --- what may leave --------------------------------------------------------------------------

    def _protect(self, profile: ClientProfile) -> None:
        """From now on this profile says what may leave outside the tunnel."""
        self._switch = profile.protection.kill_switch
        self._protection = replace(
            self._protection,
            device=profile.tun.name,
            wanted=traffic_policy(profile),
            unwanted=lockdown_policy(profile),
        )

    async def _enforce(self) -> None:
        """Put in place what the state allows; while a tunnel's own table is there, it does that itself."""
        if self._tunnel is None or not self._tunnel.owns_table:
            await self._guard.enforce(self.machine.state.allows(self._protection))

    async def _enforce_or_tell(self) -> None:
        problem = await self._try_to_enforce(self.machine.state.allows(self._protection))
        if problem is not None:
            self.machine.tell(problem)

    async def _try_to_enforce(self, policy: TrafficPolicy | None) -> str | None:
        try:
            await self._guard.enforce(policy)
        except HostError as error:
            log.error("%s", error)
            return str(error)
        return None

    async def _mend_guard(self) -> list[str]:
        if self._tunnel is not None and self._tunnel.owns_table:
            return []
        return await self._guard.mend()

    async def _clean_up(self) -> list[str]:
        policy = self.machine.state.allows(self._protection)
        left = await asyncio.to_thread(HostNetwork.cleanup_leftovers, self._state_dir, after=policy)
        for device in left:
            log.warning("put back what an earlier tunnel had left on this host: %s", device)
        return [f"what the tunnel {device} had changed" for device in left]

    def _remember(self, wanted: Wanted) -> None:
        """For the next start; a disk that is full is said, and is no reason not to obey."""
        self._wanted = wanted
        try:
            wanted.save(self._state_dir)
        except HostError as error:
            log.error("%s", error)

    # --- commands --------------------------------------------------------------------------------

    async def up(self, profile: str | None) -> None:
        """Connect through the profile of that name, None for the one that is meant."""
        async with self._commands:
            await self._up(profile)

    async def _up(self, profile: str | None) -> None:
        name = await asyncio.to_thread(self._store.resolve, profile)
        target = Target(name, await asyncio.to_thread(self._store.load, name))
        while self.machine.state.name == "disconnecting":
            self._settled.clear()
            await self._settled.wait()
        if target == self._target:
            if self.machine.state.name == "blocked":
                self._woken.set()
            return
        if self._tunnel is None:
            check_alone(target.profile, self._state_dir)
        preflight_host()
        wanted = Wanted(name, up=True)
        wanted.save(self._state_dir)  # raises before anything has changed
        self._wanted = wanted
        self._protect(target.profile)
        if self._tunnel is None:
            await self._guard.enforce(STATES["connecting"].allows(self._protection))
        self._target, self._is_resumed = target, False
        self._backoff = Backoff(random.random)
        self._portals.forget()
        self.machine.on(Happening.UP)
        self._end_tunnel()

    async def down(self) -> None:
        """Disconnect and put the host back. Already down is no error, and lifts what a crash left."""
        async with self._commands:
            self._down()

    def _down(self) -> None:
        self._target = None
        self._close_portal()
        if self._switch != "always":
            self._protection = replace(self._protection, unwanted=None)
        self._remember(Wanted(self._wanted.profile, up=False))
        self._settled.clear()
        self.machine.on(Happening.DOWN)
        self._end_tunnel()

    async def reconnect(self) -> None:
        """Open every leg anew, or try again now. Raises HostError when nothing is wanted up."""
        async with self._commands:
            if self._target is None:
                raise HostError("nothing is up: say `htvpn up` first")
            if self._tunnel is not None:
                self._tunnel.reconnect()
            else:
                self._woken.set()

    async def portal(self, seconds: float) -> None:
        """Open what a captive portal needs, for so long; 0 closes it again."""
        async with self._commands:
            await self._portal(seconds)

    async def _portal(self, seconds: float) -> None:
        self._close_portal()
        if seconds > 0:
            state = self.machine.state.name
            if state == "reconnecting":
                self.machine.on(Happening.UP)
                self._end_tunnel()  # which has no legs, and would swallow what browsers ask
            elif state not in ("connecting", "blocked") or self._protection.wanted is None:
                raise HostError(
                    "nothing stands in the way of a captive portal now: it is opened while the kill switch "
                    "blocks and there is no tunnel, or none with legs"
                )
            self._protection = replace(self._protection, portal=portals.OPENINGS)
            self._portal_timer = self._driver.loop.call_later(seconds, self._portal_is_over)
        await self._enforce()

    async def reload(self) -> None:
        """Read the profile again; what may leave is changed at once, the rest with the next `htvpn up`."""
        async with self._commands:
            await self._reload()

    async def _reload(self) -> None:
        name = self._wanted.profile
        if name is None:
            return
        profile = await asyncio.to_thread(self._store.load, name)
        self._protect(profile)
        target, tunnel = self._target, self._tunnel
        if target is not None and tunnel is None:
            self._target = Target(name, profile)
            self._woken.set()
        elif target is not None and replace(target.profile, protection=profile.protection) != profile:
            log.warning(
                "the profile has changed: what it says beyond [protection] takes effect at the next up"
            )
        if tunnel is not None:
            await tunnel.change_policy(self._protection.with_tunnel(), self._protection.with_legs())
        await self._enforce()

    async def repair(self) -> list[str]:
        """Undo whatever an earlier process left on this host; what was put back, one sentence each."""
        async with self._commands:
            return await self._repair()

    async def _repair(self) -> list[str]:
        if self._tunnel is not None:
            return await self._tunnel.mend()
        found = await self._guard.mend()
        return found + await self._clean_up()

    async def adopt(self, pid: int, programs: str) -> None:
        """Count a process among the excluded programs, or those that alone use the tunnel."""
        if self._tunnel is None:
            raise HostError("The tunnel is not up: connect first.")
        await self._tunnel.adopt_program(pid, programs)

    def _portal_is_over(self) -> None:
        self._close_portal()
        self._mender.wake()

    def _close_portal(self) -> None:
        if self._portal_timer is not None:
            self._portal_timer.cancel()
            self._portal_timer = None
        self._protection = replace(self._protection, portal=())
        self._guard.intend(self.machine.state.allows(self._protection))

    # --- what it says of itself ------------------------------------------------------------------

    async def events(self, since: int, wait: float) -> list[Event]:
        """Changes of state, and failures, after ``since``."""
        return await self.machine.events(since, wait)

    async def logs(self, since: int, wait: float) -> list[LogLine]:
        """Lines of the log after ``since``."""
        return await self._lines.lines(since, wait)

    def status(self) -> Status:
        """As ``control/status.py`` describes it."""
        machine, tunnel = self.machine, self._tunnel
        policy = machine.state.allows(self._protection)
        is_tunnels = tunnel is not None and tunnel.owns_table
        protection = ProtectionStatus(
            kill_switch=self._switch,
            active=policy is not None,
            verified=policy is not None and (is_tunnels or self._guard.is_verified),
        )
        if tunnel is not None:
            status = tunnel.status()
        else:
            status = Status(
                version=__version__,
                state=machine.state.name,
                since=machine.since,
                sentence=machine.sentence,
                profile=None,
                pid=os.getpid(),
                uptime=0.0,
                device=None,
                session=0,
                round_trip=None,
                lost=[],
                flows={"tcp": 0, "udp": 0, "icmp": 0},
                protection=protection,
                dropped=dict(self.counters.dropped),
            )
        status["state"] = machine.state.name
        status["since"] = machine.since
        status["sentence"] = machine.sentence
        status["profile"] = self._target.name if self._target is not None else None
        status["uptime"] = self._driver.clock() - self._started
        status["protection"] = protection
        return status

    @property
    def is_ready(self) -> bool:
        """Whether traffic can flow both ways now."""
        return self.machine.state.name == "connected"

    def flow_counts(self) -> dict[str, int]:
        """Flows that are open now, by kind."""
        return {} if self._tunnel is None else self._tunnel.flow_counts()
