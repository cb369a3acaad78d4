"""The configuration of the DNS service: plain data, checked when it is made."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from halftunnel_vpn.dns.cache import CacheLimits
from halftunnel_vpn.errors import ConfigError

Server = tuple[str, int]
"""A resolver: its address as text (a link-local one with ``%interface``) and its port."""

MIN_FAKE_NETWORK = 4
"""Addresses that a network of fake addresses has at least."""

_NAME = re.compile(r"[a-z0-9_.-]*")


@dataclass(frozen=True)
class DnsServiceConfig:
    """Settings of the DNS service. Raises ConfigError on a value that is not allowed.

    Names stand for themselves in ``hosts``, for themselves and all below them in ``block``, ``split`` and
    ``fake_exclude``. Times are seconds.
    """

    mode: Literal["forward", "fake-ip"] = "forward"
    ipv6: bool = True
    """False: questions for AAAA are answered empty, but those about hosts and split domains."""
    hosts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    block: Sequence[str] = ()
    block_answer: Literal["nxdomain", "zero"] = "nxdomain"
    split: Mapping[str, Sequence[Server]] = field(default_factory=dict)
    """Domain to the resolvers outside the tunnel that are asked about it."""
    cache: CacheLimits = field(default_factory=CacheLimits)
    timeout: float = 8.0
    """How long a client waits for an answer through the tunnel before it gets SERVFAIL."""
    local_ttl: int = 60
    """TTL of the answers from hosts, the block list and other answers made here."""
    fake_network_v4: str = "198.18.0.0/15"
    fake_network_v6: str = "fd48:5456:f00d::/96"
    fake_ttl: int = 10
    fake_max_names: int = 65_536
    fake_hold: float = 600.0
    """How long after its last use a fake address keeps its name for certain."""
    fake_exclude: Sequence[str] = ()

    def __post_init__(self) -> None:
        _one_of("dns.mode", self.mode, ("forward", "fake-ip"))
        _one_of("dns.block_answer", self.block_answer, ("nxdomain", "zero"))
        for name, addresses in self.hosts.items():
            for address in addresses:
                _address(f"dns.hosts.{name}", address)
        for domain, servers in self.split.items():
            if not servers:
                raise ConfigError(f"dns.split.{domain}: name at least one resolver.")
            for address, port in servers:
                _address(f"dns.split.{domain}", address)
                if not 0 < port < 65536:
                    raise ConfigError(f"dns.split.{domain}: {port} is not a port (1 to 65535).")
        _fake_network("dns.fake_network_v4", self.fake_network_v4, 4)
        _fake_network("dns.fake_network_v6", self.fake_network_v6, 6)


def normal_name(name: str) -> str:
    """``name`` as questions spell it: ASCII (IDNA), lower case, no last dot; raises ConfigError."""
    try:
        normal = name.removesuffix(".").encode("idna").decode("ascii").lower()
    except UnicodeError:
        normal = None
    if normal is None or not _NAME.fullmatch(normal):
        raise ConfigError(f"{name!r} is not a domain name; write it like 'example.org', without a star.")
    return normal


def _one_of(key: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ConfigError(f"{key}: {value!r} is not allowed; use {' or '.join(allowed)}.")


def _address(key: str, value: str) -> None:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        raise ConfigError(f"{key}: {value!r} is not an IP address.") from None


def _fake_network(key: str, value: str, version: int) -> None:
    try:
        network = ipaddress.ip_network(value)
    except ValueError:
        raise ConfigError(f"{key}: {value!r} is not a network.") from None
    if network.version != version or network.num_addresses < MIN_FAKE_NETWORK:
        raise ConfigError(f"{key}: {value!r} must be an IPv{version} network of 4 addresses or more.")
