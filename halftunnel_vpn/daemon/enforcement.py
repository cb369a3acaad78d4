"""What the daemon's state allows outside the tunnel, in place: by the tunnel's own table, or the guard's."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from halftunnel_vpn.client.settings import lockdown_policy, traffic_policy
from halftunnel_vpn.client.tunnel import Tunnel
from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.control.status import ProtectionStatus
from halftunnel_vpn.daemon.guard import Guard
from halftunnel_vpn.daemon.machine import Machine
from halftunnel_vpn.daemon.states import STATES, Protection
from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.firewall import Opening, TrafficPolicy

log = logging.getLogger(__name__)


class Enforcement:
    """The protection that is meant, and the means to put in place what the machine's state makes of it."""

    def __init__(self, state_dir: Path, machine: Machine, tunnel: Callable[[], Tunnel | None]) -> None:
        self.protection = Protection()
        self._machine = machine
        self._tunnel = tunnel
        self._guard = Guard(state_dir)
        self._switch = "off"
        self._inbound = True

    @property
    def allowed(self) -> TrafficPolicy | None:
        """What may leave outside the tunnel now; None: everything."""
        return self._machine.state.allows(self.protection)

    @property
    def is_tunnels(self) -> bool:
        """Whether a tunnel's own table is there, which enforces by itself."""
        tunnel = self._tunnel()
        return tunnel is not None and tunnel.owns_table

    def take_over(self) -> TrafficPolicy | None:
        """Mean what an earlier process left in place. Raises HostError when that cannot be read."""
        left = self._guard.remembered()
        self.protection = Protection(wanted=left, unwanted=left)
        self._inbound = left is None or left.inbound
        return left

    def protect(self, profile: ClientProfile) -> None:
        """From now on this profile says what may leave outside the tunnel."""
        self._switch = profile.protection.kill_switch
        self._inbound = profile.routes.inbound
        self.protection = replace(
            self.protection,
            device=profile.tun.name,
            wanted=traffic_policy(profile),
            unwanted=lockdown_policy(profile),
        )

    def release(self) -> None:
        """Nothing is to be refused while no tunnel is wanted, but by a kill switch ``always``."""
        if self._switch != "always":
            self.protection = replace(self.protection, unwanted=None)

    async def lift(self) -> list[str]:
        """Mean nothing any more, whatever the kill switch; what that lifted, in sentences. Or HostError."""
        found = [] if self.allowed is None else ["the kill switch"]
        self._switch, self.protection = "off", Protection()
        await self._guard.enforce(None)
        return found

    def open(self, openings: tuple[Opening, ...]) -> None:
        """What a captive portal needs, from the next change on; nothing closes it again."""
        self.protection = replace(self.protection, portal=openings)
        self._guard.intend(self.allowed)

    async def prepare(self, state: str) -> None:
        """Put in place what a state allows that comes next. Raises HostError."""
        await self._guard.enforce(STATES[state].allows(self.protection))

    async def enforce(self) -> None:
        """Put in place what the state allows, unless the tunnel does that itself. Raises HostError."""
        if not self.is_tunnels:
            await self._guard.enforce(self.allowed)

    async def attempt(self, state: str | None = None) -> str | None:
        """Put in place what the state allows, or ``state``; the sentence of what prevents it."""
        try:
            await self.prepare(state or self._machine.state.name)
        except HostError as error:
            log.error("%s", error)
            return str(error)
        return None

    async def mend(self) -> list[str]:
        """Put back what somebody else has changed; what that was, in sentences. Raises HostError."""
        return [] if self.is_tunnels else await self._guard.mend()

    def status(self) -> ProtectionStatus:
        """As ``control/status.py`` describes it."""
        is_active = self.allowed is not None
        return ProtectionStatus(
            kill_switch=self._switch,
            active=is_active,
            verified=is_active and (self.is_tunnels or self._guard.is_verified),
            inbound=self._inbound,
        )
