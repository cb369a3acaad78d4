"""The networks in the host's main routing table, as the kernel lists them in /proc."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from halftunnel_vpn.host.host_state import Network

IPV4_ROUTES = Path("/proc/thread-self/net/route")
"""Interface, destination, gateway, flags, ..., mask. Addresses are 32-bit words in machine byte order."""

IPV6_ROUTES = Path("/proc/thread-self/net/ipv6_route")
"""Destination, its prefix length, ..., the interface last. Addresses are 32 hexadecimal digits."""

_EVERY_LINK = (ipaddress.IPv6Network("fe80::/10"), ipaddress.IPv6Network("ff00::/8"))


def networks_in_use(device: str) -> frozenset[Network]:
    """Return every destination except default routes and those through ``device`` or the loopback device.

    Empty if the kernel does not list its routes.
    """
    ignored = {device, "lo"}
    found: set[Network] = set()
    for line in _lines(IPV4_ROUTES)[1:]:
        fields = line.split()
        if fields[0] not in ignored:
            address, mask = (bytes.fromhex(fields[column])[::-1] for column in (1, 7))
            prefix = int.from_bytes(mask, "big").bit_count()
            found.add(ipaddress.IPv4Network((address, prefix)))
    for line in _lines(IPV6_ROUTES):
        fields = line.split()
        if fields[-1] not in ignored:
            network = ipaddress.IPv6Network((bytes.fromhex(fields[0]), int(fields[1], 16)))
            if not any(network.subnet_of(other) for other in _EVERY_LINK):
                found.add(network)
    return frozenset(network for network in found if network.prefixlen)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []
