"""The daemon: one tunnel at a time, the state machine around it, and the commands of the control socket."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from halftunnel_vpn.client.backoff import Backoff
from halftunnel_vpn.client.captive_portal import RETRY_DELAY, PortalWatch
from halftunnel_vpn.client.connector import explain
from halftunnel_vpn.client.tamper_watch import Mender
from halftunnel_vpn.client.tunnel import Tunnel
from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.control.daemon_routes import Event, LogLine
from halftunnel_vpn.control.profile_store import ProfileStore
from halftunnel_vpn.control.status import Status
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.daemon import portals
from halftunnel_vpn.daemon.enforcement import Enforcement
from halftunnel_vpn.daemon.events import TunnelEvent
from halftunnel_vpn.daemon.log_ring import LogRing
from halftunnel_vpn.daemon.machine import Machine, sentence_of
from halftunnel_vpn.daemon.status import status_of
from halftunnel_vpn.errors import (
    HalfTunnelError,
    HandshakeError,
    HostError,
    RoadError,
    first_leaf,
)
from halftunnel_vpn.host.network import HostNetwork
from halftunnel_vpn.host.preflight import preflight_host
from halftunnel_vpn.host.wanted import Wanted
from halftunnel_vpn.protocol.handshake import HandshakeRefused
from halftunnel_vpn.transport.driver import Driver
from halftunnel_vpn.transport.faults import endless

log = logging.getLogger(__name__)


_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Target:
    """The profile that is wanted up, and its name in the store."""

    name: str
    profile: ClientProfile


def _in_turn(
    command: Callable[Concatenate[Daemon, _Arguments], Coroutine[Any, Any, _Result]],
) -> Callable[Concatenate[Daemon, _Arguments], Coroutine[Any, Any, _Result]]:
    """One command after the other: what one has looked at, no other changes before it is done."""

    @functools.wraps(command)
    async def waiting(daemon: Daemon, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        async with daemon.commands:
            return await command(daemon, *args, **kwargs)

    return waiting


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
        self._enforcement = Enforcement(state_dir, self.machine, lambda: self._tunnel)
        self._mender = Mender(self._enforcement.mend, self.counters)
        self._wanted = Wanted()
        self._target: Target | None = None
        self._tunnel: Tunnel | None = None
        self._is_resumed = False
        self._is_stopping = False
        self.commands = asyncio.Lock()
        self._woken = asyncio.Event()
        self._settled = asyncio.Event()
        self._backoff = Backoff(random.random)
        self._portals = PortalWatch(self.counters, driver.clock)
        self._door = portals.PortalOpening(self._enforcement, self._mender, driver.loop)

    # --- life ------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Take over what an earlier daemon left: its policy without a gap, and what was wanted up.

        Raises HostError when what was left cannot be read or put back.
        """
        left = self._enforcement.take_over()
        self._wanted = Wanted.load(self._state_dir)
        problem = None
        if self._wanted.profile is not None:
            try:
                profile = await asyncio.to_thread(self._store.load, self._wanted.profile)
            except HalfTunnelError as error:
                problem = sentence_of(error)
            else:
                self._enforcement.protect(profile)
                if self._wanted.up:
                    self._target = Target(self._wanted.profile, profile)
                    self._is_resumed = True
        if self._target is not None or (self._wanted.up and left is not None):
            self.machine.on(TunnelEvent.UP)
            if self._target is None:
                self.machine.on(TunnelEvent.BLOCKED, problem)
        elif problem is not None:
            self.machine.note(problem)
        await self._enforcement.enforce()
        if self._target is None:
            await self._clean_up()

    async def run(self) -> None:
        """Do what is wanted until :meth:`stop`; a kill switch that holds then is left in place."""
        async with asyncio.TaskGroup() as tasks:
            mender = tasks.create_task(endless(self._mender.run(), "the watch over the host"))
            portal = portals.watch_for_portal(self._portals, self.machine, lambda: self._tunnel)
            portal_watch = tasks.create_task(endless(portal, "the watch for captive portals"))
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
                portal_watch.cancel()
                self._door.close()

    def stop(self) -> None:
        """Have :meth:`run` put the host back and return; what is wanted is remembered for the next start."""
        self._is_stopping = True
        self._end_tunnel()

    async def _rest(self) -> None:
        """Nothing is wanted: put the host back, and wait."""
        if self.machine.state.name == "disconnecting":
            # first the deed, then the word: who hears "disconnected" finds the host as it was
            problem = await self._enforcement.attempt("disconnected")
            self.machine.on(TunnelEvent.STOPPED, problem)
        else:
            await self._enforce_or_tell()
        self._settled.set()
        await self._wait(None)

    async def _attempt(self, target: Target) -> None:
        """One tunnel, from its first dial to its end."""
        if self.machine.state.name != "connecting":
            self.machine.on(TunnelEvent.UP)
        failure: BaseException | None = None
        tunnel = Tunnel(target.profile, self._driver, changed=self._tunnel_changed)
        self._tunnel, self._woken = tunnel, asyncio.Event()
        try:
            await self._enforcement.enforce()
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
        portal = await portals.look(self._portals, target.profile, failure, self._woken)
        if self._target is not target or self._is_stopping:
            return
        is_guarded = self._enforcement.protection.wanted is not None
        if portal is not None:
            portals.log_portal(portal)
            goes_on = is_guarded or self._is_resumed
            sentence = portal.sentence(sentence, is_shut=is_guarded, goes_on=goes_on)
        if is_guarded:
            self.machine.on(TunnelEvent.BLOCKED, sentence)
            await self._enforce_or_tell()
        elif passing and self._is_resumed:
            if self.machine.state.name != "connecting":
                self.machine.on(TunnelEvent.UP)
            self.machine.note(sentence)
        else:
            self._target = None
            self._remember(Wanted(target.name, up=False))
            self.machine.on(TunnelEvent.FAILED, sentence)
            return
        delay = self._backoff.next_delay() if passing else None
        await self._wait(delay if delay is None or portal is None else min(delay, RETRY_DELAY))
        if self._target is target and not self._is_stopping:
            self.machine.on(TunnelEvent.RETRY)

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
            self.machine.on(TunnelEvent.ESTABLISHED)
            if self._door.is_open:
                self._door.close()
            now = "connected"
        if now == "connected" and phase == "reconnecting":
            self.machine.on(TunnelEvent.LOST)
        elif now == "reconnecting" and phase == "connected":
            self.machine.on(TunnelEvent.REGAINED)

    def _end_tunnel(self) -> None:
        if self._tunnel is not None:
            self._tunnel.stop()
        self._woken.set()

    # --- the host ---------------------------------------------------------------------------------

    async def _enforce_or_tell(self) -> None:
        problem = await self._enforcement.attempt()
        if problem is not None:
            self.machine.tell(problem)

    async def _clean_up(self) -> list[str]:
        after = self._enforcement.allowed
        left = await asyncio.to_thread(HostNetwork.cleanup_leftovers, self._state_dir, after=after)
        for device in left:
            log.warning("restored what an earlier tunnel had left on this host: %s", device)
        return [f"what the tunnel {device} had changed" for device in left]

    def _remember(self, wanted: Wanted) -> None:
        """For the next start; a disk that is full is said, and is no reason not to obey."""
        self._wanted = wanted
        try:
            wanted.save(self._state_dir)
        except HostError as error:
            log.error("%s", error)

    # --- commands --------------------------------------------------------------------------------

    @_in_turn
    async def up(self, profile: str | None) -> None:
        """Connect through the profile of that name, None for the one that is meant."""
        name = await asyncio.to_thread(self._store.resolve, profile)
        target = Target(name, await asyncio.to_thread(self._store.load, name))
        while self.machine.state.name == "disconnecting":
            self._settled.clear()
            await self._settled.wait()
        if target == self._target:
            if self._tunnel is None:
                self._woken.set()  # it waits between two attempts, or for just this
            return
        preflight_host()
        wanted = Wanted(name, up=True)
        wanted.save(self._state_dir)  # raises before anything has changed
        self._wanted = wanted
        self._enforcement.protect(target.profile)
        if self._tunnel is None:
            await self._enforcement.prepare("connecting")
        self._target, self._is_resumed = target, False
        self._backoff = Backoff(random.random)
        self._portals.forget()
        self.machine.on(TunnelEvent.UP)
        self._end_tunnel()

    @_in_turn
    async def down(self) -> None:
        """Disconnect and put the host back. Already down is no error, and lifts what a crash left."""
        self._target = None
        self._door.close()
        self._enforcement.release()
        self._remember(Wanted(self._wanted.profile, up=False))
        self._settled.clear()
        self.machine.on(TunnelEvent.DOWN)
        self._end_tunnel()

    @_in_turn
    async def reconnect(self) -> None:
        """Open every leg anew, or try again now. Raises HostError when nothing is wanted up."""
        if self._target is None:
            raise HostError("nothing is up: run `htvpn up` first")
        if self._tunnel is not None:
            self._tunnel.reconnect()
        else:
            self._woken.set()

    @_in_turn
    async def portal(self, seconds: float) -> None:
        """Open what a captive portal needs, for so long; 0 closes it again."""
        self._door.close()
        if seconds > 0:
            state = self.machine.state.name
            if state == "reconnecting":
                self.machine.on(TunnelEvent.UP)
                self._end_tunnel()  # which has no legs, and would swallow what browsers ask
            elif state not in ("connecting", "blocked") or self._enforcement.protection.wanted is None:
                raise HostError(
                    "nothing stands in the way of a captive portal now: it is opened while the kill switch "
                    "blocks and there is no tunnel, or none with legs"
                )
            self._door.open(seconds)
        await self._enforcement.enforce()

    @_in_turn
    async def reload(self) -> None:
        """Read the profile again; what may leave is changed at once, the rest with the next `htvpn up`."""
        name = self._wanted.profile
        if name is None:
            return
        profile = await asyncio.to_thread(self._store.load, name)
        self._enforcement.protect(profile)
        target, tunnel = self._target, self._tunnel
        if target is not None and tunnel is None:
            self._target = Target(name, profile)
            self._woken.set()
        elif target is not None and replace(target.profile, protection=profile.protection) != profile:
            log.warning("the profile has changed: all of it except [protection] takes effect at the next up")
        if tunnel is not None:
            protection = self._enforcement.protection
            await tunnel.change_policy(protection.with_tunnel(), protection.with_legs())
        await self._enforcement.enforce()

    @_in_turn
    async def repair(self, *, lift: bool) -> list[str]:
        """Undo whatever an earlier process left on this host; what was put back, one sentence each."""
        if lift and self.machine.state.name != "disconnected":
            raise HostError("a tunnel is wanted up: run `htvpn down` first, then lift what remains")
        if self._tunnel is not None:
            return await self._tunnel.mend()
        if lift:
            self._remember(Wanted())  # or the next start would put back what its profile says
        found = await (self._enforcement.lift() if lift else self._enforcement.mend())
        return found + await self._clean_up()

    async def adopt(self, pid: int, programs: str) -> None:
        """Count a process among the excluded programs, or those that alone use the tunnel."""
        if self._tunnel is None:
            raise HostError("The tunnel is not up: connect first.")
        await self._tunnel.adopt_program(pid, programs)

    # --- what it says of itself ------------------------------------------------------------------

    async def events(self, since: int, wait: float) -> list[Event]:
        """Changes of state, and failures, after ``since``."""
        return await self.machine.events(since, wait)

    async def logs(self, since: int, wait: float) -> list[LogLine]:
        """Lines of the log after ``since``."""
        return await self._lines.lines(since, wait)

    def status(self) -> Status:
        """As ``control/status.py`` describes it."""
        return status_of(
            self.machine,
            self._tunnel,
            profile=self._target.name if self._target is not None else None,
            uptime=self._driver.clock() - self._started,
            protection=self._enforcement.status(),
            counters=self.counters,
        )

    @property
    def is_ready(self) -> bool:
        """Whether traffic can flow both ways now."""
        return self.machine.state.name == "connected"

    def flow_counts(self) -> dict[str, int]:
        """Flows that are open now, by kind."""
        return {} if self._tunnel is None else self._tunnel.flow_counts()
