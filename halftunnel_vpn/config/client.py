"""The client's profile: everything `htvpn up` has to know. ``configs/client.toml`` explains every key.

The path of an attribute is the path of its key: ``profile.dns.mode`` is ``mode`` in ``[dns]``.
Durations are seconds, sizes bytes, keys 32 raw bytes.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Iterator, Mapping
from typing import Literal

from halftunnel_vpn.config import DEFAULT_CONTROL_SOCKET, exits, net, values
from halftunnel_vpn.config.exits import (
    ClientConfig,
    ExitConfig,
    ExitEntry,
    FailoverConfig,
    RoadConfig,
    TlsConfig,
)
from halftunnel_vpn.config.proxy_server import ProxyServerConfig
from halftunnel_vpn.config.schema import (
    Report,
    config_table,
    entries,
    option,
    optional_section,
    parse,
    required,
    secret_option,
    section,
    sections,
    unless,
)
from halftunnel_vpn.config.shared import (
    DEFAULT_CONGESTION,
    DEFAULT_NICE,
    MAX_NICE,
    MIN_NICE,
    LogConfig,
    TelemetryConfig,
)

KERNELS_TABLES = (253, 254, 255)
"""Routing tables default, main and local (rtnetlink(7)). A tunnel needs a table of its own."""


@config_table
class ProxyConfig:
    """``[proxy]``: an HTTP proxy that all legs use (CONNECT)."""

    url: str | None = secret_option(values.optional(net.proxy_url), default=None)


@config_table
class TunConfig:
    """``[tun]``: the device on this machine."""

    name: str = option(values.interface_name, default="htvpn0")
    mtu: int = option(values.integer(1280, 65535), default=1500)
    addresses: tuple[net.Interface, ...] = option(
        values.several(net.interface_address, minimum=1, maximum=8),
        default=(ipaddress.ip_interface("10.73.72.1/32"), ipaddress.ip_interface("fd48:5456:504e::1/128")),
    )


Programs = Literal["all", "only"]


@config_table
class RoutesConfig:
    """``[routes]``: which traffic uses the tunnel, and the numbers of the routing rules in the kernel."""

    include: tuple[net.Network, ...] = option(
        values.several(net.network, maximum=4096),
        default=(ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")),
    )
    exclude: tuple[net.Network, ...] = option(values.several(net.network, maximum=4096), default=())
    table: int = option(values.integer(1, 2**31 - 1), default=18516)
    lan: bool = option(values.boolean, default=True)
    inbound: bool = option(values.boolean, default=True)
    programs: Programs = option(values.one_of("all", "only"), default="all")
    gateway: tuple[str, ...] = option(values.several(values.interface_name, maximum=16), default=())
    # 4099 more follow it (host/host_state.py), and setsockopt takes an int.
    mark: int = option(values.integer(1, 2**31 - 8192), default=18516)
    priority: int = option(values.integer(1, 32000), default=18516)


KillSwitch = Literal["off", "on", "always"]


@config_table
class ProtectionConfig:
    """``[protection]``: what may leave this machine outside the tunnel."""

    kill_switch: KillSwitch = option(values.one_of("off", "on", "always"), default="off")
    allow_lan: bool = option(values.boolean, default=True)
    portal_probe: bool = option(values.boolean, default=True)


DnsMode = Literal["forward", "fake-ip", "off"]
BlockAnswer = Literal["nxdomain", "zero"]
Takeover = Literal["mend", "report"]


@config_table
class DnsConfig:
    """``[dns]``: how queries to port 53 are answered."""

    mode: DnsMode = option(values.one_of("forward", "fake-ip", "off"), default="forward")
    addresses: tuple[net.Address, ...] = option(
        values.several(net.address, minimum=1, maximum=8),
        default=(ipaddress.ip_address("10.73.72.53"), ipaddress.ip_address("fd48:5456:504e::53")),
    )
    hosts: Mapping[str, tuple[net.Address, ...]] = entries(
        values.free_table(net.domain, values.several(net.address, minimum=1, maximum=64)),
        default_factory=dict,
    )
    block: tuple[str, ...] = option(values.several(net.suffix), default=())
    block_answer: BlockAnswer = option(values.one_of("nxdomain", "zero"), default="nxdomain")
    split: Mapping[str, tuple[net.Address, ...]] = entries(
        values.free_table(net.suffix, values.several(net.address, minimum=1, maximum=8)), default_factory=dict
    )
    cache_entries: int = option(values.integer(0, 1_000_000), default=10_000)
    prefetch: bool = option(values.boolean, default=True)
    serve_stale: float = option(values.duration(0, 604_800), default=3600.0)
    takeover: Takeover = option(values.one_of("mend", "report"), default="mend")
    fake_networks: tuple[net.Network, ...] = option(
        values.several(net.network, minimum=2, maximum=2),
        default=(ipaddress.ip_network("198.18.0.0/15"), ipaddress.ip_network("fd48:5456:f00d::/96")),
    )
    fake_exclude: tuple[str, ...] = option(values.several(net.suffix), default=())


@config_table
class LimitsConfig:
    """``[limits]``: bounds of memory and time."""

    stream_window: int = option(values.size(64 * 2**10, 2**30), default=16 * 2**20)
    session_window: int = option(values.size(256 * 2**10, 2**32), default=64 * 2**20)
    memory: int | None = option(values.optional(values.size(16 * 2**20, 2**40)), default=None)
    max_flows: int = option(values.integer(16, 1_000_000), default=65536)
    udp_idle: float = option(values.duration(5, 86400), default=300.0)
    keepalive: float = option(values.duration(1, 60), default=8.0)
    keepalive_longest: float = option(values.duration(1, 300), default=60.0)
    connect_timeout: float = option(values.duration(1, 120), default=10.0)
    handshake_timeout: float = option(values.duration(1, 120), default=15.0)
    congestion: str = option(values.congestion_control, default=DEFAULT_CONGESTION)
    nice: int = option(values.integer(MIN_NICE, MAX_NICE), default=DEFAULT_NICE)


@config_table
class TcpConfig:
    """``[tcp]``: how TCP flows are terminated."""

    answer_at_once: bool = option(values.boolean, default=False)
    answer_known_at_once: bool = option(values.boolean, default=True)


ShapingModeName = Literal["off", "split", "strong"]


@config_table
class ShapingConfig:
    """``[shaping]``: what observers of the paths are kept from seeing, and how much that may cost."""

    mode: ShapingModeName = option(values.one_of("off", "split", "strong"), default="off")
    rate: int = option(values.size(100_000, 6_000_000), default=900_000)
    overhead: int = option(values.integer(0, 100_000), default=0)
    budget: int | None = option(values.optional(values.size(2**20, 2**50)), default=None)
    delay: float | None = option(values.optional(values.duration(0.1, 60)), default=None)


@config_table
class ControlConfig:
    """``[control]``: the control socket of the running client."""

    socket: str = option(values.file_name, default=DEFAULT_CONTROL_SOCKET)


@config_table
class ClientMetricsConfig:
    """``[metrics]``: where /metrics, /healthz and /readyz are served; nowhere when not set."""

    listen: net.Endpoint | None = option(values.optional(net.endpoint), default=None)


@config_table
class ClientProfile:
    """A complete profile, seen through one of its exits.

    ``exits`` has all of them, the preferred one first, also where the file has no ``[[exits]]``. After
    reading, ``exit``, ``client``, ``upstream`` and ``downstream`` are those of the first one.
    """

    name: str = required(values.identifier)
    exit: ExitConfig = unless("exits", section(ExitConfig))
    client: ClientConfig = unless("exits", section(ClientConfig))
    upstream: RoadConfig = unless("exits", section(RoadConfig))
    downstream: RoadConfig = unless("exits", section(RoadConfig))
    exits: tuple[ExitEntry, ...] = sections(ExitEntry, maximum=exits.MAX_EXITS)
    failover: FailoverConfig = optional_section(default_factory=FailoverConfig)
    tls: TlsConfig = optional_section(default_factory=TlsConfig)
    proxy: ProxyConfig = optional_section(default_factory=ProxyConfig)
    proxy_server: ProxyServerConfig = optional_section(default_factory=ProxyServerConfig)
    tun: TunConfig = optional_section(default_factory=TunConfig)
    routes: RoutesConfig = optional_section(default_factory=RoutesConfig)
    protection: ProtectionConfig = optional_section(default_factory=ProtectionConfig)
    dns: DnsConfig = optional_section(default_factory=DnsConfig)
    limits: LimitsConfig = optional_section(default_factory=LimitsConfig)
    tcp: TcpConfig = optional_section(default_factory=TcpConfig)
    shaping: ShapingConfig = optional_section(default_factory=ShapingConfig)
    control: ControlConfig = optional_section(default_factory=ControlConfig)
    metrics: ClientMetricsConfig = optional_section(default_factory=ClientMetricsConfig)
    telemetry: TelemetryConfig = optional_section(default_factory=TelemetryConfig)
    log: LogConfig = optional_section(default_factory=LogConfig)


def parse_client(
    text: str, *, source: str = "profile", variables: Mapping[str, str] | None = None
) -> ClientProfile:
    """Read a profile. ``source`` names it in messages, ``variables`` replace keys.

    Raises ConfigError with every problem found.
    """
    return parse(
        text, ClientProfile, source=source, completed=_completed, also=_contradictions, variables=variables
    )


def through(profile: ClientProfile, entry: ExitEntry) -> ClientProfile:
    """Return ``profile`` seen through ``entry``, one of its exits."""
    assert entry.private_key is not None
    return dataclasses.replace(
        profile,
        exit=ExitConfig(public_key=entry.public_key, name=entry.name, priority=entry.priority),
        client=ClientConfig(private_key=entry.private_key),
        upstream=entry.upstream,
        downstream=entry.downstream,
    )


def views(profile: ClientProfile) -> list[ClientProfile]:
    """Return ``profile`` seen through each of its exits, the preferred one first."""
    if len(profile.exits) == 1:
        return [profile]
    return [through(profile, entry) for entry in profile.exits]


def _completed(read: ClientProfile, report: Report) -> ClientProfile:
    """Return the profile with all its exits, seen through the first one. What is missing is reported."""
    single = {"exit": read.exit, "upstream": read.upstream, "downstream": read.downstream}
    found = list(read.exits)
    if any(single.values()):
        missing = [name for name, table in single.items() if not table]
        for name in missing:
            report.add(f"[{name}] is missing: the exit of the profile's own tables needs it beside [[exits]]")
        if missing:
            return read
        own = ExitEntry(
            name=read.exit.name or read.name,
            public_key=read.exit.public_key,
            priority=read.exit.priority,
            upstream=read.upstream,
            downstream=read.downstream,
        )
        found.insert(0, own)
    if len({entry.name for entry in found}) < len(found):
        report.add("[[exits]] name: each exit needs another one")
    private_key = read.client.private_key if read.client else None
    for entry in found:
        if private_key is None and entry.private_key is None:
            report.add(
                f"[client] private_key is missing: the exit {entry.name} has no private_key of its own"
            )
    report.raise_if_any()
    found = [exits.complete(entry, read.tls, private_key) for entry in exits.in_order(found)]
    return through(dataclasses.replace(read, exits=tuple(found)), found[0])


def _contradictions(profile: ClientProfile) -> Iterator[str]:
    if profile.limits.session_window < profile.limits.stream_window:
        yield "[limits] session_window: must be at least as large as stream_window"
    if profile.limits.keepalive_longest < profile.limits.keepalive:
        yield "[limits] keepalive_longest: must be at least as long as keepalive"
    for entry in profile.exits:
        where = "" if len(profile.exits) == 1 else f"exit {entry.name}: "
        for problem in _contradictions_of_exit(entry):
            yield where + problem
    if profile.routes.table in KERNELS_TABLES:
        yield f"[routes] table: {profile.routes.table} holds this host's own routes; choose another"
    if not profile.control.socket:
        yield "[control] socket: must name a file"
    fake = profile.dns.fake_networks
    if {found.version for found in fake} != {4, 6} or any(found.num_addresses < 4 for found in fake):
        yield "[dns] fake_networks: must name an IPv4 and an IPv6 network, of 4 addresses or more"
    for inside in profile.dns.addresses:
        if any(inside == interface.ip for interface in profile.tun.addresses):
            yield f"[dns] addresses: {inside} is this machine's own in [tun] addresses; choose another"


def _contradictions_of_exit(entry: ExitEntry) -> Iterator[str]:
    for name, road in (("upstream", entry.upstream), ("downstream", entry.downstream)):
        if road.weights and len(road.weights) != len(road.urls):
            yield f"[{name}] weights: must have one number for each of the {len(road.urls)} urls, or none"
    if entry.downstream.weights or entry.downstream.spread != "round-robin":
        yield "[downstream] spread, weights: the exit chooses among downstream legs; leave both out"
    if entry.public_key == entry.private_key:
        yield "[exit] public_key: is the same as [client] private_key; it must be the exit's public key"
