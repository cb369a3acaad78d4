"""Applies what a state allows outside the tunnel, through the policy port."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from halftunnel_vpn.client.supervisor.policy_port import PolicyPort
from halftunnel_vpn.client.supervisor.state_policies import StatePolicies
from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.control.status_schema import ProtectionStatus
from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.kernel.traffic_policy import Opening, TrafficPolicy

Allows = Callable[[StatePolicies], TrafficPolicy | None]
"""Selects a state's policy; None refuses nothing."""

log = logging.getLogger(__name__)


class Enforcement:
    """The policies of the active profile, and the means to apply the one that a state selects."""

    def __init__(self, port: PolicyPort) -> None:
        self.policies = StatePolicies()
        self.port = port
        self._switch = "off"
        self._inbound = True

    @property
    def is_guarded(self) -> bool:
        """Whether a kill switch holds while a tunnel is wanted."""
        return self.policies.wanted is not None

    def take_over(self) -> TrafficPolicy | None:
        """Adopt the policy that an earlier process left in force. Raises HostError if it cannot be read."""
        left = self.port.remembered()
        self.policies = StatePolicies(wanted=left, unwanted=left)
        self._inbound = left is None or left.inbound
        return left

    def protect(self, profile: ClientProfile) -> Callable[[], None]:
        """Use the policies of ``profile`` from now on; return a function that undoes this."""
        before = self._switch, self._inbound, self.policies

        def undo() -> None:
            self._switch, self._inbound, self.policies = before

        self._switch = profile.protection.kill_switch
        self._inbound = profile.routes.inbound
        self.policies = replace(StatePolicies.of(profile), portal=self.policies.portal)
        return undo

    def release(self) -> None:
        """Refuse nothing while no tunnel is wanted, unless the kill switch is ``always``."""
        if self._switch != "always":
            self.policies = replace(self.policies, unwanted=None)

    async def lift(self, allows: Allows) -> list[str]:
        """Clear every policy, whatever the kill switch; return what was lifted. Raises HostError."""
        found = [] if allows(self.policies) is None else ["the kill switch"]
        self._switch, self.policies = "off", StatePolicies()
        await self.port.enforce(None)
        return found

    def open(self, openings: tuple[Opening, ...], allows: Allows) -> None:
        """Set what is open for a captive portal, from the next change of the policy on."""
        self.policies = replace(self.policies, portal=openings)
        self.port.intend(allows(self.policies))

    async def enforce(self, allows: Allows) -> None:
        """Apply what a state allows; the tunnel stays as it is. Raises HostError."""
        await self.port.enforce(allows(self.policies))

    def finds_nothing(self, allows: Allows) -> bool:
        """Return whether everything is allowed, and no earlier process has recorded a change of the host."""
        return allows(self.policies) is None and not self.port.has_records

    async def ensure(self, allows: Allows) -> None:
        """Do the same as :meth:`enforce`, unless everything is allowed and nothing of ours is on the host."""
        if allows(self.policies) is not None or not self.port.is_clear:
            await self.enforce(allows)

    async def attempt(self, allows: Allows, *, always: bool = True) -> str | None:
        """Do the same as :meth:`enforce`, but return the sentence of a failure; None on success.

        Without ``always`` do the same as :meth:`ensure`.
        """
        try:
            await (self.enforce if always else self.ensure)(allows)
        except HostError as error:
            log.error("%s", error)
            return str(error)
        return None

    async def mend(self) -> list[str]:
        """Repair what other programs have changed; return the differences, as sentences. Raises HostError."""
        return await self.port.mend()

    def status(self, allows: Allows) -> ProtectionStatus:
        """Return the status as ``control/status_schema.py`` describes it."""
        is_active = allows(self.policies) is not None
        return ProtectionStatus(
            kill_switch=self._switch,
            active=is_active,
            verified=is_active and self.port.is_verified,
            inbound=self._inbound,
        )
