"""What a profile allows outside the tunnel: one policy for each kind of state."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from halftunnel_vpn.client.settings import lockdown_policy, traffic_policy
from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.host.kernel.traffic_policy import Opening, TrafficPolicy


@dataclass(frozen=True, kw_only=True, slots=True)
class StatePolicies:
    """What the active profile says about traffic outside the tunnel. A policy None refuses nothing.

    ``wanted`` is the policy while a tunnel is wanted (None: the kill switch is off), ``unwanted`` while none
    is (None unless the kill switch is ``always``). ``portal`` is what is open for a captive portal now.
    """

    device: str = ""
    wanted: TrafficPolicy | None = None
    unwanted: TrafficPolicy | None = None
    portal: tuple[Opening, ...] = ()

    @classmethod
    def of(cls, profile: ClientProfile) -> StatePolicies:
        """Return the policies of ``profile``; nothing is open for a captive portal."""
        return cls(device=profile.tun.name, wanted=traffic_policy(profile), unwanted=lockdown_policy(profile))

    def with_legs(self) -> TrafficPolicy | None:
        """Our own legs, and what is allowed anyway."""
        return self.wanted

    def with_portal(self) -> TrafficPolicy | None:
        """Our own legs, and what a captive portal needs, while that is open."""
        if self.wanted is None:
            return None
        return dataclasses.replace(self.wanted, openings=(*self.wanted.openings, *self.portal))

    def with_tunnel(self) -> TrafficPolicy | None:
        """Our own legs, and everything through the tunnel's device."""
        return None if self.wanted is None else dataclasses.replace(self.wanted, tunnel=self.device)

    def locked(self) -> TrafficPolicy | None:
        """Not even our own legs; or everything, where no kill switch holds between tunnels."""
        return self.unwanted
