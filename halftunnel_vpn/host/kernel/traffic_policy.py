"""What may leave this host outside the tunnel, as data and as chains of our one nft table.

The first matching rule decides. Everything that no rule names is refused. Programs get a reset or an ICMP
error, so that they need not wait. A socket that is bound to a device, a raw socket or a multicast sender
evades the routing rules; these chains stop it. Two kinds of packets pass below them: ARP, and packet sockets
(AF_PACKET), which only root can open and DHCP clients use.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from halftunnel_vpn.host.host_state import (
    DEFAULT_MARK,
    DEFAULT_ROUTES,
    DEFAULT_RULE_PRIORITY,
    DEFAULT_TABLE,
    LAN_NETWORKS,
)
from halftunnel_vpn.host.kernel.nft import Chain, marks
from halftunnel_vpn.host.kernel.routes import DNS_PORT

__all__ = ["LAN_NETWORKS", "Opening", "TrafficPolicy", "chains"]

PROTOCOLS: Final = ("tcp", "udp", "icmp", "icmpv6")

_FAMILY: Final = {4: ("ip", "ipv4"), 6: ("ip6", "ipv6")}

_DHCP: Final = (
    "meta nfproto ipv4 udp sport 68 udp dport 67 accept",  # RFC 2131, section 4.1
    # RFC 8415, sections 7.1 and 7.2
    "ip6 saddr fe80::/10 ip6 daddr { fe80::/10, ff02::1:2, ff05::1:3 } udp sport 546 udp dport 547 accept",
)
_NEIGHBOURS: Final = (
    # RFC 4861: packets from beyond a router have a smaller hop limit and are ignored
    "icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Opening:
    """Traffic that may leave for a while: to ``networks`` (none: all), by ``protocol``, to ``ports``.

    ``protocol`` is one of :data:`PROTOCOLS`, or "" for any protocol; then there are no ports. Raises
    ValueError for invalid values.
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
    """Which traffic may pass outside the tunnel, and the tunnel's device if there is one.

    ``mark`` is the mark of our own packets. ``own_ports`` are the TCP ports of our exits; with any of them
    our packets may also go to DNS, and without any none of our packets pass. ``lan`` and ``excluded`` are
    networks that stay outside, except their DNS while ``intercept_dns``. ``pass_marks`` are marks of other
    packets that may go anywhere (those of excluded programs). ``protect`` are the guarded networks; with
    ``0.0.0.0/0`` and ``::/0`` everything is guarded. DHCP, neighbour discovery and traffic within this host
    always pass. ``table`` and ``rule_priority`` say where our routing rules are (see
    ``host/kernel/route_table.py``). ``inbound``: replies to connections from outside pass, but nothing that
    this host begins (see ``host/kernel/inbound.py``).

    Raises ValueError for invalid values.
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
        """Return it as JSON data. :meth:`from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrafficPolicy:
        """Read what :meth:`as_dict` returned. Raises TypeError (unknown field), ValueError (bad value)."""
        fields = _with_tuples(data)
        fields["openings"] = tuple(Opening(**_with_tuples(item)) for item in fields.get("openings", ()))
        return cls(**fields)


def chains(policy: TrafficPolicy, inbound_marks: Sequence[int] = ()) -> tuple[Chain, ...]:
    """Return one chain for what this host sends and one for what it forwards (containers, a LAN).

    ``inbound_marks`` are the marks that ``host/kernel/inbound.py`` gives to replies, and to nothing else.
    """
    inbound = [f"meta mark {marks(*inbound_marks)} accept"] if inbound_marks else []
    policy_word = "drop" if len(_whole_families(policy.protect)) == 2 else "accept"
    return (
        # Every program understands a reset as a permanent failure.
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
    """Return the rules for our legs and our address queries. Only root can mark packets."""
    if not policy.own_ports:
        return []
    mark = f"meta mark {policy.mark:#x}"
    return [
        f"{mark} meta l4proto {{ tcp, udp }} th dport {DNS_PORT} accept",
        f"{mark} tcp dport {_set(map(str, sorted(policy.own_ports)))} accept",
    ]


def _answers(policy: TrafficPolicy) -> list[str]:
    """Return the rule for forwarded answers to outside hosts with our mark; see ``nft._replies``."""
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
    """Return the rules that refuse the rest of the protected networks."""
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
    """Group networks by IP version, without overlaps (nft sets forbid them), in a fixed order."""
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
    """Turn JSON lists into the tuples of the dataclasses."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
