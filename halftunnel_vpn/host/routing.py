"""Our routing rules and routes in the kernel, and those that stay while a kill switch holds without a tunnel.

They are the second layer of the kill switch: whoever flushes the packet filter opens no way out, since what
meets our rules without our mark finds a table in which everything is unreachable, also with a socket that is
bound to a device. And whoever flushes the rules still has the packet filter in front of him.
"""

from __future__ import annotations

from collections.abc import Iterable

from halftunnel_vpn.host import sysctls
from halftunnel_vpn.host.firewall import TrafficPolicy
from halftunnel_vpn.host.netlink import Kernel
from halftunnel_vpn.host.routes import Route, Rule, wanted_routes, wanted_rules
from halftunnel_vpn.host.state import HostState


def versions() -> tuple[int, ...]:
    """The IP versions that this kernel has."""
    return (4, 6) if sysctls.has_ipv6() else (4,)


def put(kernel: Kernel, state: HostState, rules: Iterable[Rule], routes: Iterable[Route], index: int) -> None:
    """Have the kernel hold these and nothing else of ours; ``index`` is the TUN device's, 0 for none.

    What is to come stands before what is to go, so that nothing finds a gap.
    """
    rules, routes = list(rules), list(routes)
    present_routes = kernel.routes(state.table)
    for route in routes:
        if route not in present_routes:
            kernel.add_route(route, state.table, index)
    present_rules = kernel.rules(state.rule_priority)
    for rule in rules:
        if rule not in present_rules:
            kernel.add_rule(rule)
    for rule in sorted(present_rules.difference(rules)):
        kernel.remove_rule(rule)
    for route in sorted(present_routes.difference(routes)):
        kernel.remove_route(route, state.table)


def remove(kernel: Kernel, state: HostState) -> None:
    """Remove all of ours from the places that ``state`` names."""
    for rule in sorted(kernel.rules(state.rule_priority), reverse=True):
        kernel.remove_rule(rule)
    for route in kernel.routes(state.table):
        kernel.remove_route(route, state.table)


def lock_state(policy: TrafficPolicy) -> HostState:
    """The state whose rules keep in what ``policy`` protects, without a device to go through.

    The LAN keeps its routes even where the packet filter refuses it: renewing a DHCP lease needs them.
    """
    return HostState(
        addresses=(),
        table=policy.table,
        mark=policy.mark,
        rule_priority=policy.rule_priority,
        include=policy.protect,
        exclude=policy.excluded,
        intercept_dns=policy.intercept_dns,
    )


def lock(kernel: Kernel, policy: TrafficPolicy) -> None:
    """Have the kernel hold the rules of ``policy`` and unreachable routes behind them."""
    state = lock_state(policy)
    put(kernel, state, *_locks(policy, state), 0)


def is_locked(kernel: Kernel, policy: TrafficPolicy) -> bool:
    """Whether all of them are there, and no others of ours."""
    state = lock_state(policy)
    rules, routes = _locks(policy, state)
    return kernel.rules(state.rule_priority) == set(rules) and kernel.routes(state.table) == set(routes)


def _locks(policy: TrafficPolicy, state: HostState) -> tuple[list[Rule], list[Route]]:
    """None while something is opened: by which ports, only the packet filter can tell."""
    if policy.openings:
        return [], []
    unreachable = [route for route in wanted_routes(state, versions()) if not route.through_tun]
    return wanted_rules(state, versions()), unreachable
