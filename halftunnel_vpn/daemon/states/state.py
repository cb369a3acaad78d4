"""What a state is: a name, the traffic it allows outside the tunnel, and where each happening leads."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from halftunnel_vpn.daemon.events import TunnelEvent
from halftunnel_vpn.host.firewall import Opening, TrafficPolicy


@dataclass(frozen=True, kw_only=True, slots=True)
class Protection:
    """What the profile that is meant says about traffic outside the tunnel.

    ``wanted`` is the policy while a tunnel is wanted (None: the kill switch is off), ``unwanted`` while none
    is (None unless the kill switch is ``always``). ``portal`` is what is open for a captive portal now.
    """

    device: str = ""
    wanted: TrafficPolicy | None = None
    unwanted: TrafficPolicy | None = None
    portal: tuple[Opening, ...] = ()

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


@dataclass(frozen=True, slots=True)
class State:
    """One state; ``allows`` picks its policy, None meaning that nothing is refused."""

    name: str
    allows: Callable[[Protection], TrafficPolicy | None]
    leads_to: Mapping[TunnelEvent, str]
