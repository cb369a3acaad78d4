"""Addresses that are no place in the public Internet (RFC 6890), in whatever spelling."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

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

NEVER_REMOTE: Final[tuple[Network, ...]] = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "168.63.129.16/32",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/127",
        "fe80::/10",
        "fd00:ec2::254/128",  # metadata service of Amazon
        "ff00::/8",
    )
)
"""Those of them that are this host, its link or its cloud: nothing at the other end of a tunnel has them."""

MAX_REMEMBERED: Final = 4096
"""Answers that a :class:`SourceFilter` remembers, by address."""


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


def in_any(address: Address, networks: tuple[Network, ...]) -> bool:
    """Return whether ``address`` is in one of ``networks``, which may be of both versions."""
    return any(address.version == network.version and address in network for network in networks)


class SourceFilter:
    """Decide from which sources the client accepts datagrams of the exit."""

    __slots__ = ("_public", "_remote")

    def __init__(self) -> None:
        self._public: dict[bytes, bool] = {}
        self._remote: dict[bytes, bool] = {}

    def is_public(self, address: bytes) -> bool:
        """Whether ``address`` (4 or 16 bytes), and each IPv4 address that it embeds, is a public one."""
        return _remembered(self._public, address, DENIED_BY_DEFAULT)

    def may_be_remote(self, address: bytes) -> bool:
        """Whether ``address`` may be a private network beyond the exit, for which the host has asked."""
        return _remembered(self._remote, address, NEVER_REMOTE)


def _remembered(memory: dict[bytes, bool], address: bytes, denied: tuple[Network, ...]) -> bool:
    answer = memory.get(address)
    if answer is None:
        spelled = ipaddress.ip_address(address)
        readings: list[Address] = [spelled]
        if isinstance(spelled, ipaddress.IPv6Address) and int(spelled) >= 2:
            readings += embedded_ipv4(spelled)
        answer = not any(in_any(reading, denied) for reading in readings)
        if len(memory) >= MAX_REMEMBERED:
            memory.clear()
        memory[address] = answer
    return answer
