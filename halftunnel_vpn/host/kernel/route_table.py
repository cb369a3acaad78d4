"""Our routing rules and routes in the kernel, and those of a kill switch without a tunnel.

They are the second layer of the kill switch. If something flushes the packet filter, no path out opens:
packets that match our rules without our mark find a table in which everything is unreachable. This holds for
sockets that are bound to a device, too. If something flushes the rules, the packet filter still refuses the
packets.
"""

from __future__ import annotations

from collections.abc import Iterable

from halftunnel_vpn.host.host_state import HostState
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


def held_versions(sysctls: Sysctls, through_tun: Iterable[int] = ()) -> tuple[int, ...]:
    """Return the IP versions without a route through the TUN that the loopback device can hold back.

    It cannot if IPv6 is switched off on all devices. But then nobody connects from outside over IPv6 either.
    """
    through_tun = tuple(through_tun)
    return tuple(
        version
        for version in sysctls.versions()
        if version not in through_tun and (version == 4 or sysctls.device_has_ipv6(LOOPBACK))
    )


def put(kernel: NetlinkPort, rules: Iterable[Rule], routes: Iterable[Route], index: int) -> None:
    """Make these rules and routes the only ones of ours. ``index`` is the TUN device's, 0 for none.

    New ones are added before old ones are removed, so that there is no gap.
    """
    rules, routes = list(rules), list(routes)
    present_rules = kernel.rules()
    present_routes = kernel.routes(_tables(present_rules, routes))
    for route in routes:
        if route not in present_routes:
            kernel.add_route(route, index)
    kernel.add_rules([rule for rule in rules if rule not in present_rules])
    kernel.remove_rules(sorted(present_rules.difference(rules)))
    for route in sorted(present_routes.difference(routes)):
        kernel.remove_route(route)


def remove(kernel: NetlinkPort, state: HostState) -> None:
    """Remove all our rules and routes. ``state`` names a table to which no rule may lead afterwards."""
    rules = kernel.rules()
    tables = {state.table, held_table(state), *_tables(rules, ())}
    tables |= {uplink_table(state, uplink) for uplink in uplinks_of(kernel, state)}
    kernel.remove_rules(sorted(rules, reverse=True))
    for route in kernel.routes(tables):
        kernel.remove_route(route)


def differences(kernel: NetlinkPort, rules: Iterable[Rule], routes: Iterable[Route]) -> list[str]:
    """Return how our rules and routes in the kernel differ from these, a sentence each."""
    present_rules = kernel.rules()
    wanted: set[Rule | Route] = {*rules, *routes}
    present: set[Rule | Route] = {*present_rules, *kernel.routes(_tables(present_rules, routes))}
    found = sorted(f"The {item} is missing." for item in wanted - present)
    return found + sorted(f"The {item} should not be there." for item in present - wanted)


def _tables(rules: Iterable[Rule], routes: Iterable[Route]) -> set[int]:
    """Return the tables that may contain routes of ours."""
    return {rule.table for rule in rules if rule.table} | {route.table for route in routes}


def uplinks_of(kernel: NetlinkPort, state: HostState) -> tuple[Uplink, ...]:
    """Return the uplinks whose replies must be kept apart; empty if there is no need."""
    return kernel.uplinks(state.tun) if state.inbound else ()


def lock_state(policy: TrafficPolicy) -> HostState:
    """Return a state without a device whose rules hold back what ``policy`` protects.

    The LAN keeps its routes even if the packet filter refuses it: renewing a DHCP lease needs them.
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
    """Install the rules of ``policy`` and the unreachable routes behind them."""
    put(kernel, *_locks(kernel, policy, sysctls), 0)


def is_locked(kernel: NetlinkPort, policy: TrafficPolicy, sysctls: Sysctls) -> bool:
    """Return whether all of them are installed, and no other rule or route of ours."""
    return not differences(kernel, *_locks(kernel, policy, sysctls))


def _locks(kernel: NetlinkPort, policy: TrafficPolicy, sysctls: Sysctls) -> tuple[list[Rule], list[Route]]:
    """Return the rules and routes; none while there is an opening, whose ports only nft can match."""
    if policy.openings:
        return [], []
    state = lock_state(policy)
    uplinks = uplinks_of(kernel, state)
    held, versions = held_versions(sysctls), sysctls.versions()
    rules = wanted_rules(state, versions, uplinks=uplinks, held=held)
    return rules, wanted_routes(state, versions, held=held, uplinks=uplinks)
