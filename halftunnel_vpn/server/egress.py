"""Egress policy: where the exit opens sockets for its clients, and where it never does."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

DENIED_BY_DEFAULT: tuple[Network, ...] = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local, and the metadata service of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "224.0.0.0/4",
        "240.0.0.0/4",  # with the limited broadcast
        "168.63.129.16/32",  # metadata service of Azure
        "::/127",  # unspecified and loopback
        "64:ff9b:1::/48",  # NAT64 for local use (RFC 8215)
        "fc00::/7",  # unique local, with fd00:ec2::254
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
        "100::/64",
        "2001:db8::/32",
    )
)

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NAT64_LOCAL = ipaddress.IPv6Network("64:ff9b:1::/48")
_COMPATIBLE = ipaddress.IPv6Network("::/96")
_TRANSLATED = ipaddress.IPv6Network("::ffff:0:0:0/96")
_LAST_32_BITS = (_NAT64, _NAT64_LOCAL, _COMPATIBLE, _TRANSLATED)

MAX_REMEMBERED = 4096
"""Decisions that are remembered, by address."""


def embedded_ipv4(
    address: ipaddress.IPv6Address, nat64: Iterable[ipaddress.IPv6Network] = ()
) -> tuple[ipaddress.IPv4Address, ...]:
    """The IPv4 addresses that ``address`` spells: v4-mapped, v4-compatible, SIIT, NAT64, 6to4 or Teredo.

    ``nat64`` are further prefixes of translators, of a length that RFC 6052 has.
    """
    translated = tuple(_behind_prefix(address, prefix) for prefix in nat64 if address in prefix)
    return translated + _embedded_by_format(address)


def _behind_prefix(address: ipaddress.IPv6Address, prefix: ipaddress.IPv6Network) -> ipaddress.IPv4Address:
    """Return the IPv4 address after ``prefix``, whose bits go around the eight bits at 64 (RFC 6052)."""
    octets = address.packed[:8] + address.packed[9:] if prefix.prefixlen < 96 else address.packed
    start = prefix.prefixlen // 8
    return ipaddress.IPv4Address(octets[start : start + 4])


def _embedded_by_format(address: ipaddress.IPv6Address) -> tuple[ipaddress.IPv4Address, ...]:
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    if any(address in network for network in _LAST_32_BITS):
        return (ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF),)
    if address.sixtofour is not None:
        return (address.sixtofour,)
    return address.teredo or ()  # of Teredo: server and client


class EgressPolicy:
    """Says whether a client may reach an address.

    ``allow`` wins over everything but ``deny``; the exit's own addresses are denied unless allowed.
    Without a rule that names it, an address is reachable unless DENIED_BY_DEFAULT has it, in whatever
    spelling. The strictest reading of an IPv6 address that embeds an IPv4 address counts.
    """

    def __init__(
        self,
        *,
        allow: Iterable[Network] = (),
        deny: Iterable[Network] = (),
        nat64: Iterable[ipaddress.IPv6Network] = (),
    ) -> None:
        """``nat64`` are the prefixes of the network's own translators (RFC 6052 section 2.2)."""
        self._own: frozenset[Address] = frozenset()
        self._remembered: dict[bytes, bool] = {}
        self.set_rules(allow=allow, deny=deny, nat64=nat64)

    def set_rules(
        self,
        *,
        allow: Iterable[Network] = (),
        deny: Iterable[Network] = (),
        nat64: Iterable[ipaddress.IPv6Network] = (),
    ) -> None:
        """Decide by these rules from now on."""
        self._allow = tuple(allow)
        self._deny = tuple(deny)
        self._nat64 = tuple(nat64)
        self._remembered.clear()

    def set_own_addresses(self, own: frozenset[Address]) -> None:
        """Tell which addresses are the exit's own now."""
        if own != self._own:
            self._own = own
            self._remembered.clear()

    def permits(self, address: bytes) -> bool:
        """Whether a socket may be opened to ``address`` (4 or 16 bytes)."""
        decision = self._remembered.get(address)
        if decision is None:
            decision = self._decide(ipaddress.ip_address(address))
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[address] = decision
        return decision

    def _decide(self, address: Address) -> bool:
        if not self._decide_one(address):
            return False
        if isinstance(address, ipaddress.IPv6Address):
            # a network that is allowed by name in IPv6 does not speak for what it embeds
            return int(address) < 2 or all(
                self._decide_one(inner) for inner in embedded_ipv4(address, self._nat64)
            )
        return True

    def _decide_one(self, address: Address) -> bool:
        if _in_any(address, self._deny):
            return False
        if _in_any(address, self._allow):
            return True
        return address not in self._own and not _in_any(address, DENIED_BY_DEFAULT)


def _in_any(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address.version == network.version and address in network for network in networks)
