"""Other addresses for device and resolver if a network of the host uses the default ones."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Iterable
from typing import Final

from halftunnel_vpn.config.client import ClientProfile, DnsConfig, TunConfig
from halftunnel_vpn.host.host_state import Network

PLACES: Final[dict[int, tuple[str, ...]]] = {
    4: ("10.73.72.0", "172.30.72.0", "192.168.172.0", "100.127.72.0"),
    6: ("fd48:5456:504e::", "fd48:5456:504f::", "fdb3:1c2e:72f0::"),
}
"""Candidate networks of the device's address (.1) and the resolver's (.53), the default first."""

FAKE_PLACES: Final[dict[int, tuple[str, ...]]] = {
    4: ("198.18.0.0/15", "100.124.0.0/15", "172.28.0.0/15"),
    6: ("fd48:5456:f00d::/96", "fd48:5456:f00e::/96"),
}
"""Candidate networks of fake addresses, the default first."""


_TUN: Final = TunConfig()
_DNS: Final = DnsConfig()


def with_free_addresses(profile: ClientProfile, in_use: Iterable[Network]) -> tuple[ClientProfile, list[str]]:
    """Return ``profile`` with addresses outside the networks ``in_use``, and a sentence for each change.

    Only defaults are changed. If a profile itself names an address that collides, or no candidate is free,
    the address stays and the sentence says so.
    """
    used = tuple(in_use)
    profile, sentences = _with_free_places(profile, used)
    if profile.dns.mode == "fake-ip":
        profile, more = _with_free_fakes(profile, used)
        sentences += more
    return profile, sentences


def _with_free_places(profile: ClientProfile, used: tuple[Network, ...]) -> tuple[ClientProfile, list[str]]:
    """Move the addresses of the device and of the resolver."""
    tun, dns, sentences = profile.tun, profile.dns, list[str]()
    is_usual = (tun.addresses, dns.addresses) == (_TUN.addresses, _DNS.addresses)
    for version, places in PLACES.items():
        own = [one for one in (*(one.ip for one in tun.addresses), *dns.addresses) if one.version == version]
        clash = next((address for address in own if _clash(ipaddress.ip_network(address), used)), None)
        if clash is None:
            continue
        base = next((place for place in map(_surroundings, places) if _clash(place, used) is None), None)
        if base is None or not is_usual:
            sentences.append(f"the address {clash} of the tunnel also belongs to a network of this host")
            continue
        device = ipaddress.ip_interface(base[1])
        resolver = base[53 if version == 4 else 0x53]  # printed as .53 or ::53
        tun = dataclasses.replace(
            tun, addresses=tuple(device if one.version == version else one for one in tun.addresses)
        )
        dns = dataclasses.replace(
            dns, addresses=tuple(resolver if one.version == version else one for one in dns.addresses)
        )
        sentences.append(f"a network of this host has {clash}, so the tunnel uses {device.ip} instead")
    return dataclasses.replace(profile, tun=tun, dns=dns), sentences


def _with_free_fakes(profile: ClientProfile, used: tuple[Network, ...]) -> tuple[ClientProfile, list[str]]:
    """Move the networks of fake addresses."""
    networks, sentences = list(profile.dns.fake_networks), list[str]()
    for place, network in enumerate(profile.dns.fake_networks):
        clash = _clash(network, used)
        if clash is None:
            continue
        choices = map(ipaddress.ip_network, FAKE_PLACES[network.version])
        free = next((one for one in choices if _clash(one, used) is None), None)
        if free is None or network not in _DNS.fake_networks:
            sentences.append(f"the fake addresses {network} overlap the network {clash} of this host")
            continue
        networks[place] = free
        sentences.append(f"a network of this host overlaps {network}, so fake addresses are of {free}")
    return dataclasses.replace(
        profile, dns=dataclasses.replace(profile.dns, fake_networks=tuple(networks))
    ), sentences


def _surroundings(place: str) -> Network:
    """Return the network of ``place`` from which the tunnel's addresses are taken."""
    address = ipaddress.ip_address(place)
    return ipaddress.ip_network((address.packed, 24 if address.version == 4 else 64))


def _clash(network: Network, used: tuple[Network, ...]) -> Network | None:
    """Return the first of the networks in use that overlaps ``network``; None if there is none."""
    return next(
        (other for other in used if other.version == network.version and other.overlaps(network)), None
    )
