"""Policy routing as data: which rules and routes a wanted state means. Nothing here touches the kernel.

After wg-quick(8): our own sockets carry a mark and skip our rules, everything else meets them. Rules, by
their distance from the base priority, for each IP version:

    +0    what carries our mark jumps to the end
    +1    port 53 -> our table, whatever its address (`lookup local` has answered for loopback before)
    +2    port 53: unreachable
    +3    excluded networks -> main; what excluded programs send, and what comes out of the tunnel to be
          forwarded, jumps to the end
    +4... each included network, the longest prefix first, has two:
          private destinations -> main, where main knows a still longer prefix (so a LAN stays a LAN)
          -> our table
    +262  where all of an IP version is included: unreachable
    +263  the place to jump to

Only private destinations may be found in main: a router that calls a piece of the Internet its LAN, or hands
out routes to it (TunnelVision, CVE-2024-3661; TunnelCrack, CVE-2023-36672), gets no packet of the tunnel's.
Where only some programs go into the tunnel, all rules but the first speak of their mark alone.

A rule cannot say `not fwmark` and a port: `not` turns the whole rule around. Hence the jump.

Our table holds a default route through the TUN, and an unreachable one with a worse metric. The kernel
drops the first with the device; then the second stops what must not leak. With IPv6, a socket that is bound
to another device passes both by, hence the rules that say unreachable.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from halftunnel_vpn.host.state import LAN_NETWORKS, RULE_SPAN, HostState, Network

PROTOCOL: Final = 72
"""Our number in the `proto` field of rules and routes (`ip rule` shows it): by it we know our own again."""

MAIN_TABLE: Final = 254
TUN_METRIC: Final = 10
UNREACHABLE_METRIC: Final = 4096
DNS_PORT: Final = 53
TCP: Final = 6
UDP: Final = 17

_MARKED: Final = 0
_DNS: Final = 1
_DNS_REFUSED: Final = 2
_OUTSIDE: Final = 3
_INCLUDED: Final = 4
_END: Final = RULE_SPAN - 1
_REFUSED: Final = _END - 1
_LONGEST_PREFIX: Final = 128
_BROADCAST: Final = ipaddress.ip_network("255.255.255.255/32")
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

    def __str__(self) -> str:
        """As `ip rule` would show it."""
        words = [f"{self.priority}: from all"]
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
    """One default route of our table: through the TUN, or unreachable."""

    version: int
    through_tun: bool

    @property
    def metric(self) -> int:
        """The TUN wins while it is there."""
        return TUN_METRIC if self.through_tun else UNREACHABLE_METRIC

    def __str__(self) -> str:
        where = "through" if self.through_tun else "beneath"
        return f"IPv{self.version} default route {where} the TUN"


def wanted_rules(state: HostState, versions: Iterable[int]) -> list[Rule]:
    """The rules that ``state`` means for these IP versions, in the order in which they must be added."""
    return [rule for version in versions for rule in _rules_of(state, version)]


def _rules_of(state: HostState, version: int) -> list[Rule]:
    base = state.rule_priority
    end = base + _END
    # First of all the way around the tunnel for our own sockets, else they would meet the rest unarmed.
    rules = [Rule(version, end, "nop"), Rule(version, base + _MARKED, "goto", goto=end, mark=state.mark)]
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
        priority = base + _INCLUDED + 2 * (_LONGEST_PREFIX - network.prefixlen)
        for private in _private_parts(network) if state.lan else ():
            # a group has no route of its own: it is on the LAN whatever main says
            suppress = -1 if private.is_multicast or private == _BROADCAST else network.prefixlen
            destination = _selector(private)
            rules.append(
                Rule(
                    version, priority, "lookup", MAIN_TABLE,
                    destination=destination, suppress=suppress, mark=selected,
                )
            )  # fmt: skip
        rules.append(
            Rule(version, priority + 1, "lookup", state.table, destination=_selector(network), mark=selected)
        )
    if state.intercept_dns:
        for protocol in (UDP, TCP):
            port_53 = Rule(version, 0, "", protocol=protocol, port=DNS_PORT, mark=selected)
            rules.append(replace(port_53, priority=base + _DNS, action="lookup", table=state.table))
            rules.append(replace(port_53, priority=base + _DNS_REFUSED, action="unreachable"))
    if any(not network.prefixlen for network in state.included(version)):
        rules.append(Rule(version, base + _REFUSED, "unreachable", mark=selected))
    return rules


def wanted_routes(state: HostState, versions: Iterable[int], *, tun_has_ipv6: bool = True) -> list[Route]:
    """The routes of our table, the unreachable ones first. ``tun_has_ipv6``: the kernel lets it."""
    versions = tuple(versions)
    beneath = [Route(version, False) for version in versions]
    through = [Route(version, True) for version in versions if version == 4 or (state.ipv6 and tun_has_ipv6)]
    return beneath + through


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
