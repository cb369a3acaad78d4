"""The supervisor: the state machine executes the commands of the control socket, one at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from halftunnel_vpn.client.companions import ALONE, Companions
from halftunnel_vpn.client.host.host_keeper import HostKeeper
from halftunnel_vpn.client.supervisor import events, exit_choices, portals
from halftunnel_vpn.client.supervisor.base_state import StateContext, Step
from halftunnel_vpn.client.supervisor.captive_portal import PortalWatch
from halftunnel_vpn.client.supervisor.enforcement import Enforcement
from halftunnel_vpn.client.supervisor.events import Target, TunnelEvent
from halftunnel_vpn.client.supervisor.inbox import Inbox
from halftunnel_vpn.client.supervisor.intent import Intent
from halftunnel_vpn.client.supervisor.machine import Machine, sentence_of
from halftunnel_vpn.client.supervisor.policy_port import PolicyPort
from halftunnel_vpn.client.supervisor.profile_source import ProfileSource
from halftunnel_vpn.client.supervisor.repairs import Repairs
from halftunnel_vpn.client.supervisor.retries import Retries
from halftunnel_vpn.client.supervisor.states import Blocked, Connecting
from halftunnel_vpn.client.supervisor.supervisor_status import status_of
from halftunnel_vpn.client.supervisor.tunnel_runner import MakeTunnel, TunnelRunner, tunnels_on
from halftunnel_vpn.client.tunnel_numbers import NOTHING, TunnelNumbers
from halftunnel_vpn.control.daemon_routes import Event
from halftunnel_vpn.control.flow_schema import FlowList
from halftunnel_vpn.control.status_schema import ExitOverview, Status, TunnelState
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import HalfTunnelError, HostError
from halftunnel_vpn.host.kernel.traffic_policy import Opening
from halftunnel_vpn.transport.driver import Driver
from halftunnel_vpn.transport.faults import endless

_Result = TypeVar("_Result")

log = logging.getLogger(__name__)


class Supervisor:
    """Implements ``SupervisorPort``. Call :meth:`begin`, then :meth:`run` until :meth:`stop`.

    ``remembers``: what is wanted is kept in ``state_dir`` for the next start. ``policy`` and ``make_tunnel``
    replace the access to kernel and network, for tests.
    """

    def __init__(
        self,
        driver: Driver,
        profiles: ProfileSource,
        state_dir: Path,
        *,
        remembers: bool,
        policy: PolicyPort | None = None,
        make_tunnel: MakeTunnel | None = None,
        companions: Companions = ALONE,
    ) -> None:
        # The current state, and the history that listeners read.
        self.machine = Machine()
        self.counters = Counters()
        self._driver = driver
        self._profiles = profiles
        self._started = driver.clock()
        # Commands are handled one at a time. Each is complete before the next one begins.
        self._commands = asyncio.Lock()
        # Events that wait for the current state.
        self._inbox = Inbox()
        self._is_stopping = False
        keeper = HostKeeper.of(state_dir, self.counters)
        host = policy or keeper
        # Runs one tunnel at a time.
        self._runner = TunnelRunner(
            make_tunnel or tunnels_on(keeper, driver, self.counters, companions), self._post
        )
        # Applies the policy of the current state.
        self._enforcement = Enforcement(host)
        # What is open for a captive portal, for some minutes.
        self._opening = portals.PortalOpening(self._set_openings, host.check, driver.loop)
        self._portal_watch = PortalWatch(self.counters, driver.clock)
        # What is wanted, over restarts.
        self._intent = Intent(state_dir if remembers else None)
        # When the next attempt is due.
        self._retries = Retries(self._portal_watch, driver.loop, self._post)
        # What the states act on.
        self._context = StateContext(
            enforcement=self._enforcement,
            runner=self._runner,
            retries=self._retries,
            opening=self._opening,
            intent=self._intent,
            post=self._post,
        )
        self._repairs = Repairs(self.machine, self._context)

    # --- life ------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Adopt what an earlier process left: its policy without a gap, and the wanted profile.

        Raises HostError when it cannot be read or restored.
        """
        left = self._enforcement.take_over()
        wanted = self._intent.load()
        problem, target = None, None
        if wanted.profile is not None:
            try:
                profile = await asyncio.to_thread(self._profiles.load, wanted.profile)
            except HalfTunnelError as error:
                problem = sentence_of(error)
            else:
                self._enforcement.protect(profile)
                if wanted.up:
                    target = Target(
                        wanted.profile, profile, exit_choices.choice_after_restart(profile, wanted)
                    )
        if target is not None or (wanted.up and left is not None):
            self.machine.go(Step(TunnelEvent.UP, Connecting(target, goes_on=True)))
            if target is None:
                blocked = Blocked(None, goes_on=True, after=None)
                self.machine.go(Step(TunnelEvent.BLOCKED, blocked, problem))
        elif problem is not None:
            self.machine.note(problem)
        if target is None:
            await self._repairs.begin()
        else:
            await self._enforcement.enforce(self.machine.state.allows)
            self._post(events.RetryDue(self.machine.state))

    async def run(self) -> None:
        """Do what is wanted until :meth:`stop`. A kill switch that holds then stays in force."""
        async with asyncio.TaskGroup() as tasks:
            watch = portals.watch_for_portal(
                self._portal_watch, lambda: self._runner.tunnel, self._portal_found
            )
            helpers = [
                tasks.create_task(endless(self._runner.run(), "the task of the tunnel")),
                tasks.create_task(endless(self._enforcement.port.run(), "the watch over the host")),
                tasks.create_task(endless(watch, "the watch for captive portals")),
                tasks.create_task(self._repairs.run()),
            ]
            try:
                await self._inbox.serve(self._is_over)
            finally:
                for helper in helpers:
                    helper.cancel()
                self._retries.cancel()
                self._opening.close()

    def stop(self) -> None:
        """Make :meth:`run` restore the host and return. What is wanted is kept for the next start."""
        self._is_stopping = True
        self._retries.cancel()
        self._runner.stop()
        self._inbox.post(_nothing)

    @property
    def _is_leaving(self) -> bool:
        """Whether :meth:`stop` was called and no `down` is being executed."""
        return self._is_stopping and self.machine.state.name is not TunnelState.DISCONNECTING

    def _is_over(self) -> bool:
        """Return whether :meth:`run` ends now. A `down` that came before is executed first."""
        return self._is_leaving and self._runner.tunnel is None

    # --- events ----------------------------------------------------------------------------------

    def _post(self, event: events.Event) -> None:
        """Handle ``event`` in its turn."""
        self._inbox.post(lambda: self._handle(event))

    async def _handle(self, event: events.Event) -> None:
        """Let the state act, and take the step that it returns. Raises HostError for a refused command."""
        if isinstance(event, events.TunnelEnded):
            self._runner.reap()
        if self._is_leaving and not isinstance(event, events.Down):
            return
        step = await self.machine.state.handle_event(event, self._context)
        if step is not None:
            await self._take(step)

    async def _take(self, step: Step) -> None:
        """Enter the next state, then announce it, so that its policy is in force when its name is known."""
        self.machine.state.check(step)
        self._retries.cancel()
        problem = await step.state.enter(self._context)
        self.machine.go(step if step.sentence is not None else replace(step, sentence=problem))
        if problem is not None and step.sentence is not None:
            self.machine.report(problem)

    def _portal_found(self, sentence: str) -> None:
        if self.machine.state.name is TunnelState.RECONNECTING:
            self.machine.note(sentence)

    def _set_openings(self, openings: tuple[Opening, ...]) -> None:
        self._enforcement.open(openings, self.machine.state.allows)

    # --- commands --------------------------------------------------------------------------------

    async def up(self, profile: str | None, *, exit: str | None = None, fastest: bool = False) -> None:
        """Connect through the profile of that name, None for the active one, by the ``exit`` of that name."""
        async with self._commands:
            name = await asyncio.to_thread(self._profiles.resolve, profile)
            found = await asyncio.to_thread(self._profiles.load, name)
            target = Target(name, found, exit_choices.checked_choice(found, exit, fastest=fastest))
            await self.machine.while_in(TunnelState.DISCONNECTING)
            choosing = await self._in_turn(lambda: self._up(target))
        if choosing is not None:
            await asyncio.shield(choosing)

    async def _up(self, target: Target) -> asyncio.Future[str] | None:
        """Return the outcome of another choice for a running tunnel; None if it is not that."""
        if target != self.machine.state.target:
            await self._prepare(target)
        self._runner.choosing = None
        await self._handle(events.Up(target))
        return self._runner.choosing

    async def switch(self, *, exit: str | None = None, fastest: bool = False) -> None:
        """Use another exit of the profile that is up. Raises HostError if none is, or it is not reached."""
        async with self._commands:
            wanted = exit_choices.switched(self.machine.state.target, exit, fastest=fastest)
            choosing = await self._in_turn(lambda: self._up(wanted))
        if choosing is not None:
            await asyncio.shield(choosing)

    async def exits(self, profile: str | None) -> list[ExitOverview]:
        """Measure the exits of the profile of that name; None: of the one that is up, or the active one."""
        target, tunnel = self.machine.state.target, self._runner.tunnel
        if target is not None and tunnel is not None and profile in (None, target.name):
            return await tunnel.measure_exits()
        return await exit_choices.measured(profile, self._profiles, self.counters)

    async def _prepare(self, target: Target) -> None:
        """Do everything that may fail before the state changes. On failure undo it and raise HostError."""
        self._enforcement.port.preflight()
        before = self._intent.wanted
        self._intent.save(exit_choices.wanted_of(target))
        undo = self._enforcement.protect(target.profile)
        try:
            if self._runner.tunnel is None:
                await self._enforcement.ensure(Connecting.allows)
        except HostError:
            undo()
            self._intent.note(before)
            raise
        self._retries.forget()

    async def down(self) -> None:
        """Disconnect and restore the host. If already down, lift what a crash has left."""
        async with self._commands:
            await self._inbox.do(lambda: self._handle(events.Down()))

    async def reconnect(self) -> None:
        """Reopen every leg, or try again now. Raises HostError if no tunnel is wanted."""
        async with self._commands:
            await self._in_turn(lambda: self._handle(events.Reconnect()))

    async def portal(self, seconds: float) -> None:
        """Open what a captive portal needs for ``seconds``; 0 closes it."""
        async with self._commands:
            await self._in_turn(lambda: self._portal(seconds))

    async def _portal(self, seconds: float) -> None:
        self._opening.close()
        if seconds > 0:
            await self._handle(events.OpenPortal(seconds))
            self._opening.open(seconds)
        await self._enforcement.enforce(self.machine.state.allows)

    async def reload(self) -> None:
        """Read the profile again. The policy changes at once, the rest with the next `htvpn up`."""
        async with self._commands:
            name = self._intent.wanted.profile
            if name is None:
                return
            profile = await asyncio.to_thread(self._profiles.load, name)
            target = Target(name, profile, exit_choices.choice_after_restart(profile, self._intent.wanted))
            await self._in_turn(lambda: self._reload(target))

    async def _reload(self, target: Target) -> None:
        self._enforcement.protect(target.profile)
        before, tunnel = self.machine.state.target, self._runner.tunnel
        if tunnel is not None:
            if before is not None and before.differs_beyond_protection(target):
                log.warning(
                    "the profile has changed: all of it except [protection] takes effect at the next up"
                )
        elif before is not None:
            await self._handle(events.ProfileChanged(target))
        await self._enforcement.enforce(self.machine.state.allows)

    async def repair(self, *, lift: bool) -> list[str]:
        """Undo what an earlier process left on this host; return what was restored, a sentence each."""
        async with self._commands:
            return await self._in_turn(lambda: self._repairs.repair(lift=lift))

    async def _in_turn(self, command: Callable[[], Awaitable[_Result]]) -> _Result:
        """Return the result of ``command`` after its turn. Raises HostError when this client ends."""

        async def unless_leaving() -> _Result:
            if self._is_leaving:
                raise Inbox.over()
            return await command()

        return await self._inbox.do(unless_leaving)

    async def adopt(self, pid: int, programs: str) -> None:
        """Add a process to the excluded programs, or to those that use the tunnel."""
        await self._runner.running().adopt_program(pid, programs)

    async def record(self, seconds: float) -> str:
        """Have the tunnel write down every record; return the file. Raises HostError."""
        return self._runner.running().record(seconds)

    # --- status ----------------------------------------------------------------------------------

    async def events(self, since: int, wait: float) -> list[Event]:
        """Return changes of state, and failures, after ``since``."""
        return await self.machine.events(since, wait)

    async def flows(self) -> FlowList:
        """Return the open flows with the programs that own them."""
        return await self._runner.flows()

    def status(self) -> Status:
        """Return the status as ``control/status_schema.py`` describes it."""
        return status_of(
            self.machine,
            self._runner.tunnel,
            uptime=self._driver.clock() - self._started,
            protection=self._enforcement.status(self.machine.state.allows),
            counters=self.counters,
        )

    @property
    def is_ready(self) -> bool:
        """Whether traffic can flow in both directions."""
        return self.machine.state.name is TunnelState.CONNECTED

    def numbers(self) -> TunnelNumbers:
        """What the metrics say of the tunnel."""
        return NOTHING if self._runner.tunnel is None else self._runner.tunnel.numbers()


async def _nothing() -> None:
    """Wake the worker of the inbox."""
