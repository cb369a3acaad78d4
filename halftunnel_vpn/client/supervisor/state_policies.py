"""The policies of a profile for traffic outside the tunnel: one for each kind of state."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from halftunnel_vpn.client.settings import lockdown_policy, traffic_policy
from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.host.kernel.traffic_policy import Opening, TrafficPolicy


@dataclass(frozen=True, kw_only=True, slots=True)
class StatePolicies:
    """The policies of the active profile. A policy None refuses nothing.

    ``wanted`` is the policy while a tunnel is wanted (None: the kill switch is off), ``unwanted`` while none
    is (None unless the kill switch is ``always``). ``portal`` is what is open for a captive portal at
    present.
    """

    wanted: TrafficPolicy | None = None
    unwanted: TrafficPolicy | None = None
    portal: tuple[Opening, ...] = ()

    @classmethod
    def of(cls, profile: ClientProfile) -> StatePolicies:
        """Return the policies of ``profile`` without openings for a captive portal."""
        return cls(wanted=traffic_policy(profile), unwanted=lockdown_policy(profile))

    def with_legs(self) -> TrafficPolicy | None:
        """Permit our own legs, and what the profile always permits. A tunnel adds its device by itself."""
        return self.wanted

    def with_portal(self) -> TrafficPolicy | None:
        """Permit our own legs, and what a captive portal needs while it is open."""
        if self.wanted is None:
            return None
        return dataclasses.replace(self.wanted, openings=(*self.wanted.openings, *self.portal))

    def locked(self) -> TrafficPolicy | None:
        """Permit not even our own legs; everything if no kill switch holds between tunnels."""
        return self.unwanted
