"""The desired state of the host as data, and the kernel state that follows from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from halftunnel_vpn.host.host_state import HostState
from halftunnel_vpn.host.kernel import route_table, ruleset
from halftunnel_vpn.host.kernel.nft import Ruleset
from halftunnel_vpn.host.kernel.port import KernelPort
from halftunnel_vpn.host.kernel.routes import Route, Rule, Uplink, wanted_routes, wanted_rules
from halftunnel_vpn.host.kernel.traffic_policy import TrafficPolicy


@dataclass(frozen=True, slots=True)
class Desired:
    """A tunnel (None: no tunnel), and what may leave outside it (None: everything).

    While a tunnel is desired, all traffic may use its device, and there are no temporary openings: ``policy``
    takes its ``tunnel`` from ``tunnel`` and loses its ``openings``.
    """

    tunnel: HostState | None = None
    policy: TrafficPolicy | None = None

    def __post_init__(self) -> None:
        if self.policy is None:
            return
        device, openings = None, self.policy.openings
        if self.tunnel is not None:
            device, openings = self.tunnel.tun, ()
        policy = dataclasses.replace(self.policy, tunnel=device, openings=openings)
        object.__setattr__(self, "policy", policy)

    def table(self, kernel: KernelPort, uplinks: Sequence[Uplink] | None = None) -> Ruleset:
        """Return our nft table in the desired state. ``uplinks`` of a tunnel are read if not given."""
        if self.tunnel is not None:
            if uplinks is None:
                uplinks = ruleset.uplinks_now(kernel, self.tunnel)
            return ruleset.with_tunnel(self.tunnel, self.policy, uplinks)
        if self.policy is None:
            return Ruleset(())
        return ruleset.alone(self.policy, ruleset.uplinks_now(kernel, route_table.lock_state(self.policy)))


def addresses_of(state: HostState, kernel: KernelPort) -> set[str]:
    """Return the addresses that the tunnel's device must have."""
    has_ipv6 = kernel.sysctls.device_has_ipv6(state.tun)
    return {str(item) for item in state.interfaces() if item.version == 4 or has_ipv6}


def routing_of(
    state: HostState, kernel: KernelPort, uplinks: tuple[Uplink, ...]
) -> tuple[list[Rule], list[Route]]:
    """Return the rules and routes of a tunnel. A family that it does not carry is held back."""
    versions = kernel.sysctls.versions()
    carries_ipv6 = state.ipv6 and kernel.sysctls.device_has_ipv6(state.tun)
    through_tun = [version for version in versions if version == 4 or carries_ipv6]
    held = route_table.held_versions(kernel.sysctls, through_tun)
    rules = wanted_rules(state, versions, uplinks=uplinks, held=held)
    return rules, wanted_routes(state, versions, through_tun=through_tun, held=held, uplinks=uplinks)
