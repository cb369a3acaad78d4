"""Our routing rules and routes in the kernel, and those that stay while a kill switch holds without a tunnel.

They are the second layer of the kill switch: whoever flushes the packet filter opens no way out, since what
meets our rules without our mark finds a table in which everything is unreachable, also with a socket that is
bound to a device. And whoever flushes the rules still has the packet filter in front of him.
"""

from __future__ import annotations

from collections.abc import Iterable

from halftunnel_vpn.host.kernel.port import NetlinkPort
from halftunnel_vpn.host.kernel.routes import (
    LOOPBACK,
    Route,
    Rule,
    Uplink,
    held_table,
    uplink_table,
    wanted_routes,
    wanted_rules,
)
from halftunnel_vpn.host.kernel.sysctls import Sysctls
from halftunnel_vpn.host.kernel.traffic_policy import TrafficPolicy
from halftunnel_vpn.host.state import HostState


def held_versions(sysctls: Sysctls, through_tun: Iterable[int] = ()) -> tuple[int, ...]:
    """The versions that have no route through the TUN, as far as the loopback device can hold them.

    It cannot where IPv6 is switched off on all devices. Then nobody connects from outside over IPv6 either.
    """
    through_tun = tuple(through_tun)
    return tuple(
        version
        for version in sysctls.versions()
        if version not in through_tun and (version == 4 or sysctls.device_has_ipv6(LOOPBACK))
    )


def put(kernel: NetlinkPort, rules: Iterable[Rule], routes: Iterable[Route], index: int) -> None:
    """Have the kernel hold these and nothing else of ours; ``index`` is the TUN device's, 0 for none.

    What is to come stands before what is to go, so that nothing finds a gap.
    """
    rules, routes = list(rules), list(routes)
    present_rules = kernel.rules()
    present_routes = kernel.routes(_tables(present_rules, routes))
    for route in routes:
        if route not in present_routes:
            kernel.add_route(route, index)
    for rule in rules:
        if rule not in present_rules:
            kernel.add_rule(rule)
    for rule in sorted(present_rules.difference(rules)):
        kernel.remove_rule(rule)
    for route in sorted(present_routes.difference(routes)):
        kernel.remove_route(route)


def remove(kernel: NetlinkPort, state: HostState) -> None:
    """Remove all of ours, wherever it stands; ``state`` names a table that no rule may lead to any more."""
    rules = kernel.rules()
    tables = {state.table, held_table(state), *_tables(rules, ())}
    tables |= {uplink_table(state, uplink) for uplink in uplinks_of(kernel, state)}
    for rule in sorted(rules, reverse=True):
        kernel.remove_rule(rule)
    for route in kernel.routes(tables):
        kernel.remove_route(route)


def differences(kernel: NetlinkPort, rules: Iterable[Rule], routes: Iterable[Route]) -> list[str]:
    """How what the kernel has of ours differs from these, a sentence each."""
    present_rules = kernel.rules()
    wanted: set[Rule | Route] = {*rules, *routes}
    present: set[Rule | Route] = {*present_rules, *kernel.routes(_tables(present_rules, routes))}
    found = sorted(f"The {item} is missing." for item in wanted - present)
    return found + sorted(f"The {item} should not be there." for item in present - wanted)


def _tables(rules: Iterable[Rule], routes: Iterable[Route]) -> set[int]:
    """The tables in which routes of ours may be."""
    return {rule.table for rule in rules if rule.table} | {route.table for route in routes}


def uplinks_of(kernel: NetlinkPort, state: HostState) -> tuple[Uplink, ...]:
    """The uplinks that replies must be kept apart for; none where they need not."""
    return kernel.uplinks(state.tun) if state.inbound else ()


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
        inbound=policy.inbound,
    )


def lock(kernel: NetlinkPort, policy: TrafficPolicy, sysctls: Sysctls) -> None:
    """Have the kernel hold the rules of ``policy`` and unreachable routes behind them."""
    put(kernel, *_locks(kernel, policy, sysctls), 0)


def is_locked(kernel: NetlinkPort, policy: TrafficPolicy, sysctls: Sysctls) -> bool:
    """Whether all of them are there, and no others of ours."""
    return not differences(kernel, *_locks(kernel, policy, sysctls))


def _locks(kernel: NetlinkPort, policy: TrafficPolicy, sysctls: Sysctls) -> tuple[list[Rule], list[Route]]:
    """None while something is opened: by which ports, only the packet filter can tell."""
    if policy.openings:
        return [], []
    state = lock_state(policy)
    uplinks = uplinks_of(kernel, state)
    held, versions = held_versions(sysctls), sysctls.versions()
    rules = wanted_rules(state, versions, uplinks=uplinks, held=held)
    return rules, wanted_routes(state, versions, held=held, uplinks=uplinks)
