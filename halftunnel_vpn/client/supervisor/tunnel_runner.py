"""Runs one tunnel at a time, and posts its events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from halftunnel_vpn.client.companions import Companions
from halftunnel_vpn.client.host.free_addresses import with_free_addresses
from halftunnel_vpn.client.host.host_port import HostPort
from halftunnel_vpn.client.supervisor.events import ChoiceFailed, Event, PhaseChanged, Target, TunnelEnded
from halftunnel_vpn.client.supervisor.flow_programs import FlowPrograms
from halftunnel_vpn.client.supervisor.tunnel_port import TunnelPort
from halftunnel_vpn.client.tunnel import Tunnel, TunnelOptions
from halftunnel_vpn.control.flow_schema import FlowList
from halftunnel_vpn.control.status_schema import TunnelState
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import HalfTunnelError, HostError, first_leaf
from halftunnel_vpn.host.kernel.main_routes import networks_in_use
from halftunnel_vpn.transport.driver import Driver

log = logging.getLogger(__name__)

MakeTunnel = Callable[[Target, Callable[[], None]], TunnelPort]
"""Makes a tunnel for a target. The tunnel calls the function whenever its phase may have changed."""


def tunnels_on(host: HostPort, driver: Driver, counters: Counters, companions: Companions) -> MakeTunnel:
    """Return what makes real tunnels on ``host``. Addresses in use are replaced by free ones."""

    def make(target: Target, changed: Callable[[], None]) -> Tunnel:
        in_use = networks_in_use(target.profile.tun.name)
        profile, notices = with_free_addresses(target.profile, in_use)
        for notice in notices:
            log.warning("%s", notice)
        return Tunnel(
            profile,
            driver,
            host,
            counters,
            changed=changed,
            options=TunnelOptions(notices, companions, target.choice),
        )

    return make


class TunnelRunner:
    """:meth:`start` a tunnel if there is none. :meth:`run` is the task in which all tunnels run."""

    def __init__(self, make: MakeTunnel, post: Callable[[Event], None]) -> None:
        self.tunnel: TunnelPort | None = None
        """The tunnel that runs, is about to run, or has ended and was not reaped."""
        self.choosing: asyncio.Future[str] | None = None
        """The outcome of the last :meth:`choose`; None if the running tunnel was started with its choice."""
        self._make = make
        self._post = post
        self._programs = FlowPrograms()
        self._begun = asyncio.Event()
        self._is_stopped = False
        self._is_told = False

    def start(self, target: Target) -> None:
        """Start a tunnel. :class:`TunnelEnded` is always posted at its end."""
        assert self.tunnel is None
        self.choosing = None
        self.tunnel = self._make(target, self._changed)
        self._is_stopped = self._is_told = False
        self._begun.set()

    def choose(self, wanted: Target, before: Target) -> None:
        """Use another exit of the running tunnel. :class:`ChoiceFailed` is posted if that fails."""
        self.choosing = self.running().choose(wanted.choice)

        def decided(outcome: asyncio.Future[str]) -> None:
            if not outcome.cancelled() and outcome.exception() is not None:
                self._post(ChoiceFailed(wanted, before))

        self.choosing.add_done_callback(decided)

    def stop(self) -> None:
        """Make the tunnel restore the host and end."""
        self._is_stopped = True
        if self.tunnel is not None:
            self.tunnel.stop()

    def running(self) -> TunnelPort:
        """Return the tunnel. Raises HostError if there is none."""
        if self.tunnel is None:
            raise HostError("The tunnel is not up: run `htvpn up` first.")
        return self.tunnel

    async def flows(self) -> FlowList:
        """Return the open flows with their programs; none without a tunnel. Raises HostError."""
        return await self._programs.of(self.tunnel)

    def phase(self) -> TunnelState | None:
        """Return the phase of the tunnel; None if there is none. Later changes are posted again."""
        self._is_told = False
        return None if self.tunnel is None else self.tunnel.phase

    async def run(self) -> None:
        """Run the started tunnels until cancelled. Unexpected errors are raised, and end the process."""
        while True:
            await self._begun.wait()
            self._begun.clear()
            self._post(TunnelEnded(await self._run_one()))

    def reap(self) -> None:
        """Discard the ended tunnel. Call it when :class:`TunnelEnded` is handled."""
        self.tunnel = None

    async def _run_one(self) -> HalfTunnelError | None:
        if self.tunnel is None or self._is_stopped:
            return None
        try:
            await self.tunnel.run()
        except HalfTunnelError as error:
            return error
        except BaseExceptionGroup as group:
            leaf = first_leaf(group)
            if isinstance(leaf, HalfTunnelError):
                return leaf
            raise leaf from None
        return None

    def _changed(self) -> None:
        if not self._is_told:
            self._is_told = True
            self._post(PhaseChanged())
