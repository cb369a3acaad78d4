"""What may leave this host outside the tunnel, as data, and as chains of our one nft table.

Everything that is not named is refused, in the order that the rules have here: to programs with a reset or
an ICMP error, so that they need not wait. A socket that is bound to a device, a raw socket or a multicast
sender finds roads that no routing rule closes; these chains close them. Two kinds pass below them: ARP,
and packet sockets (AF_PACKET), which only root has and DHCP clients use.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from halftunnel_vpn.host.kernel.nft import Chain, marks
from halftunnel_vpn.host.kernel.routes import DNS_PORT
from halftunnel_vpn.host.state import (
    DEFAULT_MARK,
    DEFAULT_ROUTES,
    DEFAULT_RULE_PRIORITY,
    DEFAULT_TABLE,
    LAN_NETWORKS,
)

__all__ = ["LAN_NETWORKS", "Opening", "TrafficPolicy", "chains"]

PROTOCOLS: Final = ("tcp", "udp", "icmp", "icmpv6")

_FAMILY: Final = {4: ("ip", "ipv4"), 6: ("ip6", "ipv6")}

_DHCP: Final = (
    "meta nfproto ipv4 udp sport 68 udp dport 67 accept",  # RFC 2131, section 4.1
    # RFC 8415, sections 7.1 and 7.2
    "ip6 saddr fe80::/10 ip6 daddr { fe80::/10, ff02::1:2, ff05::1:3 } udp sport 546 udp dport 547 accept",
)
_NEIGHBOURS: Final = (
    # RFC 4861: what comes from beyond a router has a smaller hop limit, and is ignored
    "icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Opening:
    """Traffic that may leave for a while: to ``networks`` (none: everywhere), by ``protocol``, to ``ports``.

    ``protocol`` is one of :data:`PROTOCOLS`; "" means any, and then there are no ports.
    Raises ValueError for what cannot be meant.
    """

    networks: tuple[str, ...] = ()
    protocol: str = ""
    ports: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _check_networks(self.networks)
        if self.protocol and self.protocol not in PROTOCOLS:
            raise ValueError(f"protocol {self.protocol!r} is none of {', '.join(PROTOCOLS)}")
        if self.ports and self.protocol not in ("tcp", "udp"):
            raise ValueError("only tcp and udp have ports")
        _check_ports(self.ports)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrafficPolicy:
    """Which traffic passes outside the tunnel, and the tunnel's device when there is one.

    ``mark`` is that of our own packets, ``own_ports`` the TCP ports of the roads that these may go to, and
    with any of them to DNS; without, nothing of ours passes either. ``lan`` and ``excluded`` are networks
    that stay outside, their DNS excepted while ``intercept_dns``. ``pass_marks`` are marks with which other
    packets may go anywhere (that of excluded programs). ``protect`` are the networks that are guarded at all:
    with ``0.0.0.0/0`` and ``::/0`` everything is. DHCP, neighbour discovery and what stays on this host
    always pass. ``table`` and ``rule_priority`` are where our routing stands (see
    ``host/kernel/route_table.py``).
    ``inbound``: replies to connections from outside pass, and nothing that this host begins (see
    ``host/kernel/inbound.py``).

    Raises ValueError for what cannot be meant.
    """

    mark: int = DEFAULT_MARK
    own_ports: tuple[int, ...] = ()
    tunnel: str | None = None
    lan: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    pass_marks: tuple[int, ...] = ()
    openings: tuple[Opening, ...] = ()
    protect: tuple[str, ...] = DEFAULT_ROUTES
    intercept_dns: bool = True
    table: int = DEFAULT_TABLE
    rule_priority: int = DEFAULT_RULE_PRIORITY
    inbound: bool = False

    def __post_init__(self) -> None:
        _check_networks((*self.lan, *self.excluded, *self.protect))
        _check_ports(self.own_ports)
        if not all(0 < mark < 2**32 for mark in (self.mark, *self.pass_marks)):
            raise ValueError("a mark is a number from 1 to 4294967295")

    def as_dict(self) -> dict[str, Any]:
        """For JSON; :meth:`from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrafficPolicy:
        """Raises TypeError for an unknown field, ValueError for a bad value."""
        fields = _with_tuples(data)
        fields["openings"] = tuple(Opening(**_with_tuples(item)) for item in fields.get("openings", ()))
        return cls(**fields)


def chains(policy: TrafficPolicy, inbound_marks: Sequence[int] = ()) -> tuple[Chain, ...]:
    """One chain for what this host sends, one for what it forwards (containers, a LAN behind it).

    ``inbound_marks`` are those that ``host/kernel/inbound.py`` gives to replies, and to nothing else.
    """
    inbound = [f"meta mark {marks(*inbound_marks)} accept"] if inbound_marks else []
    policy_word = "drop" if len(_whole_families(policy.protect)) == 2 else "accept"
    return (
        # a reset is what no program mistakes for a passing trouble
        Chain(
            "refuse",
            "",
            ("meta l4proto tcp reject with tcp reset", "reject with icmpx type admin-prohibited"),
        ),
        Chain(
            "guard_output",
            "output priority filter",
            (
                *inbound,
                *_inside(policy),
                *_DHCP,
                *_NEIGHBOURS,
                *_own(policy),
                *_outside(policy),
                *_refusal(policy),
            ),
            policy=policy_word,
        ),
        Chain(
            "guard_forward",
            "forward priority filter",
            (
                *inbound,
                *_inside(policy),
                *_from_tunnel(policy),
                *_answers(policy),
                *_outside(policy),
                *_refusal(policy),
            ),
            policy=policy_word,
        ),
    )


def _inside(policy: TrafficPolicy) -> list[str]:
    names = ["lo", *([policy.tunnel] if policy.tunnel else [])]
    return [f"oifname {_set(_quoted(names))} accept"]


def _from_tunnel(policy: TrafficPolicy) -> list[str]:
    return [f'iifname "{policy.tunnel}" accept'] if policy.tunnel else []


def _own(policy: TrafficPolicy) -> list[str]:
    """Our legs, and our questions for the addresses of the roads; only root can give packets a mark."""
    if not policy.own_ports:
        return []
    mark = f"meta mark {policy.mark:#x}"
    return [
        f"{mark} meta l4proto {{ tcp, udp }} th dport {DNS_PORT} accept",
        f"{mark} tcp dport {_set(map(str, sorted(policy.own_ports)))} accept",
    ]


def _answers(policy: TrafficPolicy) -> list[str]:
    """What the host forwards with our mark answers somebody outside; see ``nft._replies``."""
    return [f"meta mark {policy.mark:#x} accept"]


def _outside(policy: TrafficPolicy) -> list[str]:
    rules = [f"meta mark {mark:#x} accept" for mark in sorted(policy.pass_marks)]
    for opening in policy.openings:
        rules += _opening(opening)
    if policy.intercept_dns:
        rules.append(f"meta l4proto {{ tcp, udp }} th dport {DNS_PORT} goto refuse")
    for version, networks in _by_version((*policy.lan, *policy.excluded)).items():
        rules.append(f"{_FAMILY[version][0]} daddr {_set(networks)} accept")
    return rules


def _opening(opening: Opening) -> list[str]:
    what = f"meta l4proto {opening.protocol} " if opening.protocol else ""
    if opening.ports:
        what = f"{opening.protocol} dport {_set(map(str, sorted(opening.ports)))} "
    if not opening.networks:
        return [f"{what}accept"]
    return [
        f"{_FAMILY[version][0]} daddr {_set(networks)} {what}accept"
        for version, networks in _by_version(opening.networks).items()
    ]


def _refusal(policy: TrafficPolicy) -> list[str]:
    """Refuse the rest of what is protected."""
    whole = _whole_families(policy.protect)
    if len(whole) == 2:
        return ["goto refuse"]
    rules = [f"meta nfproto {_FAMILY[version][1]} goto refuse" for version in sorted(whole)]
    for version, networks in _by_version(policy.protect).items():
        if version not in whole:
            rules.append(f"{_FAMILY[version][0]} daddr {_set(networks)} goto refuse")
    return rules


def _whole_families(networks: Iterable[str]) -> set[int]:
    parsed = [ipaddress.ip_network(text) for text in networks]
    return {network.version for network in parsed if not network.prefixlen}


def _by_version(networks: Iterable[str]) -> dict[int, list[str]]:
    """Without overlaps, which an nft set does not take, in a fixed order; no family without a network."""
    found: dict[int, list[str]] = {}
    parsed = [ipaddress.ip_network(text) for text in networks]
    v4 = [network for network in parsed if isinstance(network, ipaddress.IPv4Network)]
    v6 = [network for network in parsed if isinstance(network, ipaddress.IPv6Network)]
    if v4:
        found[4] = [str(network) for network in ipaddress.collapse_addresses(v4)]
    if v6:
        found[6] = [str(network) for network in ipaddress.collapse_addresses(v6)]
    return found


def _set(members: Iterable[str]) -> str:
    return f"{{ {', '.join(members)} }}"


def _quoted(names: Iterable[str]) -> list[str]:
    return [f'"{name}"' for name in names]


def _check_networks(networks: Iterable[str]) -> None:
    for text in networks:
        ipaddress.ip_network(text)


def _check_ports(ports: Iterable[int]) -> None:
    if not all(0 < port < 65536 for port in ports):
        raise ValueError("a port is a number from 1 to 65535")


def _with_tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has lists where the dataclasses have tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
