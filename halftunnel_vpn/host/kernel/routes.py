"""Policy routing as data: the rules and routes of a wanted state. Nothing here touches the kernel.

The scheme follows wg-quick(8): our own sockets carry a mark and skip our rules; all other packets meet them.
The rules, by their distance from the base priority, for each IP version:

  +0    packets with our mark, or with that of a reply to a connection from outside, jump to the end; a
        reply that must leave by one of several uplinks -> main, without its default routes
  +1    such a reply -> the uplink's own table
  +2    such a reply jumps to the end, if the uplink has no default route of this IP version
  +3    port 53 -> our table, whatever its address (`lookup local` has handled loopback before)
  +4    port 53: unreachable
  +5    excluded networks -> main; packets of excluded programs, and packets from the tunnel to be
        forwarded, jump to the end
  +6... three for each included network, the longest prefix first:
          private destinations -> main, if main has a longer prefix (so a LAN stays a LAN)
          packets that have a source address already -> a route to the loopback device, if the tunnel has
          no route
          -> our table
  +393  if all of an IP version is included: unreachable
  +394  the target of the jumps

Only private destinations may be found in main. So a router that declares a part of the Internet its LAN, or
announces routes to it (TunnelVision, CVE-2024-3661; TunnelCrack, CVE-2023-36672), gets no packet of the
tunnel. If only some programs use the tunnel, all rules except the first match their mark only.

A rule cannot combine `not fwmark` with a port, because `not` inverts the whole rule. Hence the jump.

Our table has a default route through the TUN, and an unreachable one with a worse metric. The kernel removes
the first with the device; then the second one prevents leaks. In IPv6 a socket that is bound to another
device skips both, hence the unreachable rules.

The packet filter recognizes a reply to a connection from outside only after the first routing lookup. If that
lookup would find no route, it must find the loopback device: the filter then marks a reply, which is routed
again, and refuses all other packets (see ``host/kernel/inbound.py``). Without the filter these packets never
leave the host.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from halftunnel_vpn.host.host_state import LAN_NETWORKS, RULE_SPAN, HostState, Network, uplink_mark

PROTOCOL: Final = 72
"""Our number in the `proto` field of rules and routes (see `ip rule`). It identifies them as ours."""

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
"""Metadata services of clouds. They are reached by the default route, whatever `main` knows of them."""

_SOURCES: Final = {
    # every address except the unspecified one, which a lookup has that must first find a source address
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


class Rule(NamedTuple):
    """One routing rule. ``action``: lookup, goto, nop or unreachable. 0, "" and -1 (suppress) mean unset."""

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
        """Return the rule in the notation of `ip rule`."""
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


class Route(NamedTuple):
    """One default route of a table of ours: through the TUN, through ``device``, or unreachable."""

    version: int
    through_tun: bool
    table: int
    device: str = ""
    gateway: str = ""

    @property
    def metric(self) -> int:
        """The metric. The route through the TUN has the best one."""
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
    """Return the table whose routes lead to the loopback device."""
    return _own_table(state.table + 1)


def uplink_table(state: HostState, uplink: Uplink) -> int:
    """Return the table with the default routes of one uplink."""
    return _own_table(state.table + 1 + uplink.index)


def _own_table(number: int) -> int:
    return number + 1000 if number in KERNELS_TABLES else number


def wanted_rules(
    state: HostState, versions: Iterable[int], *, uplinks: Sequence[Uplink] = (), held: Iterable[int] = ()
) -> list[Rule]:
    """Return the rules of ``state`` for these IP versions, in the order in which they must be added.

    ``held`` are the versions with a route to the loopback device instead of one through the TUN.
    """
    held = tuple(held)
    return [rule for version in versions for rule in _rules_of(state, version, uplinks, version in held)]


def _rules_of(state: HostState, version: int, uplinks: Sequence[Uplink], is_held: bool) -> list[Rule]:
    base = state.rule_priority
    end = base + _END
    # The bypass of our own sockets comes first; otherwise they would meet the other rules before it.
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
            # A multicast group has no route of its own. It is on the LAN whatever main says.
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
            rules.append(held._replace(source=source))
        rules.append(
            Rule(version, priority + 2, "lookup", state.table, destination=destination, mark=selected)
        )
    if state.intercept_dns:
        for protocol in (UDP, TCP):
            port_53 = Rule(version, 0, "", protocol=protocol, port=DNS_PORT, mark=selected)
            rules.append(port_53._replace(priority=base + _DNS, action="lookup", table=state.table))
            rules.append(port_53._replace(priority=base + _DNS_REFUSED, action="unreachable"))
    if any(not network.prefixlen for network in state.included(version)):
        rules.append(Rule(version, base + _REFUSED, "unreachable", mark=selected))
    return rules


def _inbound_rules(state: HostState, version: int, uplinks: Sequence[Uplink]) -> list[Rule]:
    """Return the rules for replies to connections from outside: by main, or by the marked uplink."""
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
    """Return the routes of our tables, the unreachable ones first.

    ``through_tun`` are the IP versions with a route through the TUN. ``held`` as in :func:`wanted_rules`.
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
    """Return how a rule names a network; "" for all addresses."""
    return str(network) if network.prefixlen else ""


def _private_parts(network: Network) -> list[Network]:
    """Return the private parts of a network, within which main may have a longer prefix."""
    found: list[Network] = []
    for private in _LAN:
        if private.version != network.version or not private.overlaps(network):
            continue
        if private.prefixlen > network.prefixlen:
            found.append(private)
        elif network.prefixlen < network.max_prefixlen:
            found.append(network)
    return list(dict.fromkeys(found))
