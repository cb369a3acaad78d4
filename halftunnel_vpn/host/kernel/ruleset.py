"""Our whole nft table: what a tunnel needs, what a policy refuses, and which replies leave outside."""

from __future__ import annotations

from collections.abc import Sequence

from halftunnel_vpn.host.host_state import HostState
from halftunnel_vpn.host.kernel import mark_owners, nft, route_table, traffic_policy
from halftunnel_vpn.host.kernel.inbound import Inbound
from halftunnel_vpn.host.kernel.nft import Ruleset
from halftunnel_vpn.host.kernel.port import KernelPort
from halftunnel_vpn.host.kernel.routes import Uplink
from halftunnel_vpn.host.kernel.traffic_policy import TrafficPolicy


def with_tunnel(state: HostState, policy: TrafficPolicy | None, uplinks: Sequence[Uplink] = ()) -> Ruleset:
    """Return the table while a tunnel is up. Without a policy, traffic may also take other paths."""
    replies = Inbound(state if state.inbound else None, tuple(uplinks))
    guard = () if policy is None else traffic_policy.chains(policy, replies.marks)
    owners = mark_owners.chain(state.mark)
    return replies.ruleset() + Ruleset((owners, *nft.chains(state, replies.marks), *guard))


def alone(policy: TrafficPolicy, uplinks: Sequence[Uplink] = ()) -> Ruleset:
    """Return the table while no tunnel is up."""
    state = route_table.lock_state(policy)
    replies = Inbound(state if policy.inbound else None, tuple(uplinks))
    guard = traffic_policy.chains(policy, replies.marks)
    return replies.ruleset() + Ruleset((mark_owners.chain(policy.mark), *nft.own_answers(state), *guard))


def uplinks_now(kernel: KernelPort, state: HostState) -> tuple[Uplink, ...]:
    """Return the uplinks whose replies are kept apart. Raises HostError."""
    return kernel.netlink(lambda netlink: route_table.uplinks_of(netlink, state)) if state.inbound else ()
