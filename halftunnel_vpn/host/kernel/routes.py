"""Policy routing as data: which rules and routes a wanted state means. Nothing here touches the kernel.

After wg-quick(8): our own sockets carry a mark and skip our rules, everything else meets them. Rules, by
their distance from the base priority, for each IP version:

    +0    what carries our mark, or that of a reply to a connection from outside, jumps to the end; a reply
          that must leave by one of several uplinks -> main, without its default routes
    +1    such a reply -> the uplink's own table
    +2    such a reply jumps to the end, where the uplink has no default route of this IP version
    +3    port 53 -> our table, whatever its address (`lookup local` has answered for loopback before)
    +4    port 53: unreachable
    +5    excluded networks -> main; what excluded programs send, and what comes out of the tunnel to be
          forwarded, jumps to the end
    +6... each included network, the longest prefix first, has three:
          private destinations -> main, where main knows a still longer prefix (so a LAN stays a LAN)
          what has a source address already -> a route to the loopback device, where the tunnel has no route
          -> our table
    +393  where all of an IP version is included: unreachable
    +394  the place to jump to

Only private destinations may be found in main: a router that calls a piece of the Internet its LAN, or hands
out routes to it (TunnelVision, CVE-2024-3661; TunnelCrack, CVE-2023-36672), gets no packet of the tunnel's.
Where only some programs go into the tunnel, all rules but the first speak of their mark alone.

A rule cannot say `not fwmark` and a port: `not` turns the whole rule around. Hence the jump.

Our table holds a default route through the TUN, and an unreachable one with a worse metric. The kernel
drops the first with the device; then the second stops what must not leak. With IPv6, a socket that is bound
to another device passes both by, hence the rules that say unreachable.

The packet filter knows a reply to a connection from outside, but only after the first lookup. Where that
would find nothing, it finds the loopback device: the filter gives a reply its mark, with which it is routed
again, and refuses the rest (see ``host/kernel/inbound.py``). Without the filter, nothing of it leaves the
host.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from halftunnel_vpn.host.state import LAN_NETWORKS, RULE_SPAN, HostState, Network, uplink_mark

PROTOCOL: Final = 72
"""Our number in the `proto` field of rules and routes (`ip rule` shows it): by it we know our own again."""

MAIN_TABLE: Final = 254
KERNELS_TABLES: Final = (253, 254, 255)
LOOPBACK: Final = "lo"
TUN_METRIC: Final = 10
UNREACHABLE_METRIC: Final = 4096
DNS_PORT: Final = 53
TCP: Final = 6
UDP: Final = 17

_MARKED: Final = 0
_UPLINK: Final = 1
_UPLINK_END: Final = 2
_DNS: Final = 3
_DNS_REFUSED: Final = 4
_OUTSIDE: Final = 5
_INCLUDED: Final = 6
_PER_NETWORK: Final = 3
_END: Final = RULE_SPAN - 1
_REFUSED: Final = _END - 1
_LONGEST_PREFIX: Final = 128
_BROADCAST: Final = ipaddress.ip_network("255.255.255.255/32")
METADATA: Final[dict[int, tuple[Any, ...]]] = {
    4: (ipaddress.IPv4Network("169.254.169.254/32"),),
    6: (ipaddress.IPv6Network("fd00:ec2::254/128"),),
}
"""Where clouds tell a machine about itself: at the end of its default route, whatever `main` knows of it."""

_SOURCES: Final = {
    # every address but the unspecified one, which a lookup has that must find a source first
    4: (
        "1.0.0.0/8",
        "2.0.0.0/7",
        "4.0.0.0/6",
        "8.0.0.0/5",
        "16.0.0.0/4",
        "32.0.0.0/3",
        "64.0.0.0/2",
        "128.0.0.0/1",
    ),
    6: ("2000::/3", "fc00::/7"),
}  # fmt: skip
_LAN: Final = tuple(ipaddress.ip_network(text) for text in LAN_NETWORKS)


@dataclass(frozen=True, order=True, slots=True)
class Rule:
    """One routing rule. ``action`` is lookup, goto, nop or unreachable; 0, "" and -1 (suppress) are unset."""

    version: int
    priority: int
    action: str
    table: int = 0
    goto: int = 0
    mark: int = 0
    destination: str = ""
    protocol: int = 0
    port: int = 0
    suppress: int = -1
    device: str = ""
    source: str = ""

    def __str__(self) -> str:
        """As `ip rule` would show it."""
        words = [f"{self.priority}: from {self.source or 'all'}"]
        words += [f"to {self.destination}"] if self.destination else []
        words += [f"fwmark {self.mark:#x}"] if self.mark else []
        words += [f"iif {self.device}"] if self.device else []
        words += [f"ipproto {self.protocol}"] if self.protocol else []
        words += [f"dport {self.port}"] if self.port else []
        words += [self.action]
        words += [str(self.table or self.goto)] if self.table or self.goto else []
        words += [f"suppress_prefixlength {self.suppress}"] if self.suppress >= 0 else []
        return f"IPv{self.version} rule {' '.join(words)}"


@dataclass(frozen=True, order=True, slots=True)
class Route:
    """One default route of a table of ours: through the TUN, through ``device``, or unreachable."""

    version: int
    through_tun: bool
    table: int
    device: str = ""
    gateway: str = ""

    @property
    def metric(self) -> int:
        """The TUN wins while it is there."""
        return TUN_METRIC if self.through_tun else UNREACHABLE_METRIC

    def __str__(self) -> str:
        if self.device:
            return f"IPv{self.version} default route through {self.device} in table {self.table}"
        where = "through" if self.through_tun else "beneath"
        return f"IPv{self.version} default route {where} the TUN"


@dataclass(frozen=True, order=True, slots=True)
class Uplink:
    """One of several devices with a default route; ``gateways`` by IP version, "" for one on the link."""

    index: int
    device: str
    gateways: tuple[tuple[int, str], ...]


def held_table(state: HostState) -> int:
    """The table whose routes lead to the loopback device."""
    return _own_table(state.table + 1)


def uplink_table(state: HostState, uplink: Uplink) -> int:
    """The table with the default routes of one uplink."""
    return _own_table(state.table + 1 + uplink.index)


def _own_table(number: int) -> int:
    return number + 1000 if number in KERNELS_TABLES else number


def wanted_rules(
    state: HostState, versions: Iterable[int], *, uplinks: Sequence[Uplink] = (), held: Iterable[int] = ()
) -> list[Rule]:
    """The rules that ``state`` means for these IP versions, in the order in which they must be added.

    ``held`` are the versions that have no route through the TUN, and one to the loopback device instead.
    """
    held = tuple(held)
    return [rule for version in versions for rule in _rules_of(state, version, uplinks, version in held)]


def _rules_of(state: HostState, version: int, uplinks: Sequence[Uplink], is_held: bool) -> list[Rule]:
    base = state.rule_priority
    end = base + _END
    # First of all the way around the tunnel for our own sockets, else they would meet the rest unarmed.
    rules = [Rule(version, end, "nop"), Rule(version, base + _MARKED, "goto", goto=end, mark=state.mark)]
    if state.inbound:
        rules += _inbound_rules(state, version, uplinks)
    selected = state.only_mark if state.only else 0
    rules.append(Rule(version, base + _OUTSIDE, "goto", goto=end, mark=state.excluded_mark))
    if state.gateway:
        rules.append(Rule(version, base + _OUTSIDE, "goto", goto=end, device=state.tun))
    for network in state.excluded(version):
        rules.append(
            Rule(
                version, base + _OUTSIDE, "lookup", MAIN_TABLE, destination=_selector(network), mark=selected
            )
        )
    for network in state.included(version):
        priority = base + _INCLUDED + _PER_NETWORK * (_LONGEST_PREFIX - network.prefixlen)
        destination = _selector(network)
        for private in _private_parts(network) if state.lan else ():
            # a group has no route of its own: it is on the LAN whatever main says
            suppress = -1 if private.is_multicast or private == _BROADCAST else network.prefixlen
            rules.append(
                Rule(
                    version, priority, "lookup", MAIN_TABLE,
                    destination=_selector(private), suppress=suppress, mark=selected,
                )
            )  # fmt: skip
        for address in METADATA[version] if state.lan and network.prefixlen < network.max_prefixlen else ():
            if address.subnet_of(network):
                local = Rule(version, priority, "lookup", MAIN_TABLE, destination=str(address), mark=selected)
                rules.append(local)
        for source in _SOURCES[version] if state.inbound and is_held else ():
            held = Rule(version, priority + 1, "lookup", held_table(state), destination=destination)
            rules.append(replace(held, source=source))
        rules.append(
            Rule(version, priority + 2, "lookup", state.table, destination=destination, mark=selected)
        )
    if state.intercept_dns:
        for protocol in (UDP, TCP):
            port_53 = Rule(version, 0, "", protocol=protocol, port=DNS_PORT, mark=selected)
            rules.append(replace(port_53, priority=base + _DNS, action="lookup", table=state.table))
            rules.append(replace(port_53, priority=base + _DNS_REFUSED, action="unreachable"))
    if any(not network.prefixlen for network in state.included(version)):
        rules.append(Rule(version, base + _REFUSED, "unreachable", mark=selected))
    return rules


def _inbound_rules(state: HostState, version: int, uplinks: Sequence[Uplink]) -> list[Rule]:
    """How replies to connections from outside leave: as the host says, or by the uplink that is marked."""
    base, end = state.rule_priority, state.rule_priority + _END
    rules = [Rule(version, base + _MARKED, "goto", goto=end, mark=state.inbound_mark)]
    for uplink in uplinks:
        mark = uplink_mark(state.mark, uplink.index)
        table = uplink_table(state, uplink)
        rules += [
            Rule(version, base + _MARKED, "lookup", MAIN_TABLE, mark=mark, suppress=0),
            Rule(version, base + _UPLINK, "lookup", table, mark=mark),
            Rule(version, base + _UPLINK_END, "goto", goto=end, mark=mark),
        ]
    return rules


def wanted_routes(
    state: HostState,
    versions: Iterable[int],
    *,
    through_tun: Iterable[int] = (),
    held: Iterable[int] = (),
    uplinks: Sequence[Uplink] = (),
) -> list[Route]:
    """The routes of our tables, the unreachable ones first. ``through_tun``: versions that the TUN has.

    ``held`` as in :func:`wanted_rules`.
    """
    versions, through_tun = tuple(versions), tuple(through_tun)
    routes = [Route(version, False, state.table) for version in versions]
    if state.inbound:
        table = held_table(state)
        routes += [Route(version, False, table, LOOPBACK) for version in held if state.included(version)]
        routes += [
            Route(version, False, uplink_table(state, uplink), uplink.device, gateway)
            for uplink in uplinks
            for version, gateway in uplink.gateways
            if version in versions
        ]
    return routes + [Route(version, True, state.table) for version in through_tun]


def _selector(network: Network) -> str:
    """How a rule names a network: everything needs no name."""
    return str(network) if network.prefixlen else ""


def _private_parts(network: Network) -> list[Network]:
    """What of a network is a LAN's, where a longer prefix than the network's own can be."""
    found: list[Network] = []
    for private in _LAN:
        if private.version != network.version or not private.overlaps(network):
            continue
        if private.prefixlen > network.prefixlen:
            found.append(private)
        elif network.prefixlen < network.max_prefixlen:
            found.append(network)
    return list(dict.fromkeys(found))
