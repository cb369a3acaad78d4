"""Other addresses for device and resolver where the usual ones belong to a network of the host."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Iterable
from typing import Final

from halftunnel_vpn.config.client import ClientProfile, DnsConfig, TunConfig
from halftunnel_vpn.host.kernel.main_routes import Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

PLACES: Final[dict[int, tuple[str, ...]]] = {
    4: ("10.73.72.0", "172.30.72.0", "192.168.172.0", "100.127.72.0"),
    6: ("fd48:5456:504e::", "fd48:5456:504f::", "fdb3:1c2e:72f0::"),
}
"""Where the device's address (.1) and the resolver's (.53) may lie, the usual place first."""

FAKE_PLACES: Final[dict[int, tuple[str, ...]]] = {
    4: ("198.18.0.0/15", "100.124.0.0/15", "172.28.0.0/15"),
    6: ("fd48:5456:f00d::/96", "fd48:5456:f00e::/96"),
}
"""Where fake addresses may lie, the usual place first."""


def with_free_addresses(profile: ClientProfile, in_use: Iterable[Network]) -> tuple[ClientProfile, list[str]]:
    """Return ``profile`` with addresses outside the networks ``in_use``, and a sentence for each change.

    Only defaults are changed. Where a profile names an address that collides, or no place is free, it stays
    and the sentence says so.
    """
    used = tuple(in_use)
    tun, dns, sentences = profile.tun, profile.dns, list[str]()
    is_usual = (tun.addresses, dns.addresses) == (_OWN, _RESOLVER)
    for version in (4, 6):
        clash = _clash((*(one.ip for one in tun.addresses), *dns.addresses), used, version)
        if clash is None:
            continue
        base = _free(PLACES[version], used, version) if is_usual else None
        if base is None:
            sentences.append(f"the address {clash} of the tunnel also belongs to a network of this host")
            continue
        tun = dataclasses.replace(tun, addresses=_moved_interfaces(tun, base))
        dns = dataclasses.replace(dns, addresses=_moved_addresses(dns, base))
        sentences.append(f"a network of this host has {clash}, so the tunnel uses {base + 1} instead")
    if dns.mode == "fake-ip":
        for network in dns.fake_networks:
            clashes = [
                other for other in used if other.version == network.version and other.overlaps(network)
            ]
            if not clashes:
                continue
            choices = map(ipaddress.ip_network, FAKE_PLACES[network.version])
            free = next((one for one in choices if not any(_overlap(one, other) for other in used)), None)
            if free is None or str(network) != FAKE_PLACES[network.version][0]:
                sentences.append(
                    f"the fake addresses {network} overlap the network {clashes[0]} of this host"
                )
                continue
            kept = tuple(free if one == network else one for one in dns.fake_networks)
            dns = dataclasses.replace(dns, fake_networks=kept)
            sentences.append(f"a network of this host overlaps {network}, so fake addresses are of {free}")
    return dataclasses.replace(profile, tun=tun, dns=dns), sentences


_OWN: Final = TunConfig().addresses
_RESOLVER: Final = DnsConfig().addresses


def _clash(addresses: Iterable[Address], used: tuple[Network, ...], version: int) -> Address | None:
    own = [address for address in addresses if address.version == version]
    return next((address for address in own if any(address in network for network in used)), None)


def _free(places: tuple[str, ...], used: tuple[Network, ...], version: int) -> Address | None:
    for place in map(ipaddress.ip_address, places):
        around = ipaddress.ip_network((place.packed, 24 if version == 4 else 64))
        if not any(_overlap(around, network) for network in used):
            return place
    return None


def _overlap(one: Network, other: Network) -> bool:
    return one.version == other.version and one.overlaps(other)


def _moved_interfaces(
    tun: TunConfig, base: Address
) -> tuple[ipaddress.IPv4Interface | ipaddress.IPv6Interface, ...]:
    fresh = ipaddress.ip_interface(f"{base + 1}/{base.max_prefixlen}")
    return tuple(fresh if one.version == base.version else one for one in tun.addresses)


def _moved_addresses(dns: DnsConfig, base: Address) -> tuple[Address, ...]:
    return tuple(_resolver_of(base) if one.version == base.version else one for one in dns.addresses)


def _resolver_of(base: Address) -> Address:
    """Return the address that ends in 53, as written: ``.53`` or ``::53``."""
    return base + (53 if base.version == 4 else 0x53)
