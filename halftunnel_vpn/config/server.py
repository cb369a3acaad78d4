"""The exit's configuration: ``DIR/server.toml``. ``configs/server.toml`` explains every key.

The path of an attribute is the path of its key. Names of files are relative to ``DIR``. Durations are
in seconds, sizes in bytes. Clients have their own files, see :mod:`halftunnel_vpn.config.clients`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import IPv6Network
from typing import Literal

from halftunnel_vpn.config import net, values
from halftunnel_vpn.config.schema import (
    config_table,
    entries,
    option,
    optional_section,
    parse,
    required,
    section,
)
from halftunnel_vpn.config.shared import (
    DEFAULT_CONGESTION,
    DEFAULT_NICE,
    MAX_NICE,
    MIN_NICE,
    LogConfig,
    TelemetryConfig,
)

MAX_URLS = 16
"""The most public URLs of one direction."""

Ipv6Mode = Literal["auto", "on", "off"]


@config_table
class IdentityConfig:
    """``[server]``: this exit."""

    private_key: str = required(values.file_name)
    site: str = option(values.file_name, default="")
    fallback: tuple[str, int] | None = option(values.optional(net.web_server), default=None)


@config_table
class ListenerConfig:
    """``[listen.upstream]`` and ``[listen.downstream]``: the listener for the legs of one direction."""

    address: str = required(lambda value: str(net.address(value)))
    port: int = required(net.port)
    path: str = required(net.path)
    tls: bool = option(values.boolean, default=True)
    certificate: str = option(values.file_name, default="")
    certificate_key: str = option(values.file_name, default="")
    site: str = option(values.file_name, default="")


@config_table
class ListenConfig:
    """``[listen]``: both listeners, and the proxies whose X-Forwarded-For is trusted."""

    upstream: ListenerConfig = section(ListenerConfig)
    downstream: ListenerConfig = section(ListenerConfig)
    trusted_proxies: tuple[net.Network, ...] = option(values.several(net.network, maximum=1024), default=())


@config_table
class PublicRoadConfig:
    """``[public.upstream]`` and ``[public.downstream]``: values for the profiles of clients."""

    urls: tuple[str, ...] = required(values.several(net.websocket_url, minimum=1, maximum=MAX_URLS))
    ca: str = option(values.file_name, default="")
    headers: Mapping[str, str] = entries(
        values.free_table(net.header_name, net.header_value), default_factory=dict, secret=True
    )


@config_table
class PublicConfig:
    """``[public]``: how clients reach this exit."""

    upstream: PublicRoadConfig = section(PublicRoadConfig)
    downstream: PublicRoadConfig = section(PublicRoadConfig)


@config_table
class EgressConfig:
    """``[egress]``: destinations that clients may reach beyond the public Internet, or not within it."""

    allow: tuple[net.Network, ...] = option(values.several(net.network, maximum=4096), default=())
    deny: tuple[net.Network, ...] = option(values.several(net.network, maximum=4096), default=())
    nat64: tuple[IPv6Network, ...] = option(values.several(net.nat64_prefix, maximum=64), default=())
    ipv6: Ipv6Mode = option(values.one_of("auto", "on", "off"), default="auto")


@config_table
class ResolverConfig:
    """``[dns]``: the resolvers of the exit; none means those of its /etc/resolv.conf."""

    resolvers: tuple[net.Address, ...] = option(values.several(net.address, maximum=16), default=())


@config_table
class ServerLimitsConfig:
    """``[limits]``: limits of memory, sockets and time."""

    max_clients: int = option(values.integer(1, 100_000), default=1024)
    sessions_per_client: int = option(values.integer(1, 1024), default=8)
    max_sessions: int = option(values.integer(1, 100_000), default=1024)
    legs_per_client: int = option(values.integer(2, 100_000), default=1024)
    connections: int = option(values.integer(4, 100_000), default=4096)
    connections_per_peer: int = option(values.integer(4, 100_000), default=256)
    arrivals_per_peer: int = option(values.integer(1, 100_000), default=32)
    arrivals: int = option(values.integer(1, 100_000), default=128)
    strangers_per_peer: int = option(values.integer(1, 100_000), default=8)
    strangers: int = option(values.integer(1, 100_000), default=64)
    streams_per_client: int = option(values.integer(1, 1_000_000), default=16384)
    max_streams: int = option(values.integer(1, 1_000_000), default=65536)
    dials_per_client: int = option(values.integer(1, 65536), default=256)
    max_dials: int = option(values.integer(1, 65536), default=1024)
    dial_timeout: float = option(values.duration(1, 120), default=10.0)
    stream_window: int = option(values.size(64 * 2**10, 2**30), default=16 * 2**20)
    session_window: int = option(values.size(256 * 2**10, 2**32), default=64 * 2**20)
    memory: int | None = option(values.optional(values.size(64 * 2**20, 2**40)), default=None)
    session_idle: float = option(values.duration(10, 86400), default=300.0)
    udp_idle: float = option(values.duration(5, 86400), default=300.0)
    keepalive: float = option(values.duration(1, 60), default=8.0)
    handshake_timeout: float = option(values.duration(1, 120), default=10.0)
    stop_timeout: float = option(values.duration(0, 60), default=2.0)
    congestion: str = option(values.congestion_control, default=DEFAULT_CONGESTION)
    nice: int = option(values.integer(MIN_NICE, MAX_NICE), default=DEFAULT_NICE)


ShapingMax = Literal["off", "split", "strong"]


@config_table
class ExitShapingConfig:
    """``[shaping]``: how much shaping clients may request. It costs traffic and processor time."""

    max: ShapingMax = option(values.one_of("off", "split", "strong"), default="strong")
    max_rate: int = option(values.size(100_000, 6_000_000), default=1_600_000)
    delay: float = option(values.duration(0.1, 60), default=5.0)


@config_table
class ExitControlConfig:
    """``[control]``: the Unix socket for `htvpn server clients` and its like; empty means a default."""

    socket: str = option(values.file_name, default="")


@config_table
class WebConfig:
    """``[web]``: where the page for the operator is, on this machine alone; nowhere when not set."""

    listen: net.Endpoint | net.SocketName | None = option(values.optional(net.page_place), default=None)


@config_table
class ExitMetricsConfig:
    """``[metrics]``: where /metrics, /healthz and /readyz are served; nowhere when not set.

    ``clients``: also bytes of each client, by name. ``probe``: what /readyz connects to.
    """

    listen: net.Endpoint | None = option(values.optional(net.endpoint), default=None)
    clients: bool = option(values.boolean, default=False)
    probe: net.Endpoint | None = option(values.optional(net.endpoint), default=None)


@config_table
class ServerConfig:
    """A complete configuration of an exit."""

    server: IdentityConfig = section(IdentityConfig)
    listen: ListenConfig = section(ListenConfig)
    public: PublicConfig = section(PublicConfig)
    egress: EgressConfig = optional_section(default_factory=EgressConfig)
    dns: ResolverConfig = optional_section(default_factory=ResolverConfig)
    limits: ServerLimitsConfig = optional_section(default_factory=ServerLimitsConfig)
    shaping: ExitShapingConfig = optional_section(default_factory=ExitShapingConfig)
    control: ExitControlConfig = optional_section(default_factory=ExitControlConfig)
    web: WebConfig = optional_section(default_factory=WebConfig)
    metrics: ExitMetricsConfig = optional_section(default_factory=ExitMetricsConfig)
    telemetry: TelemetryConfig = optional_section(default_factory=TelemetryConfig)
    log: LogConfig = optional_section(default_factory=LogConfig)


def parse_server(
    text: str, *, source: str = "server.toml", variables: Mapping[str, str] | None = None
) -> ServerConfig:
    """Read an exit's configuration; ``variables`` replace keys.

    Raises ConfigError with every problem found.
    """
    return parse(text, ServerConfig, source=source, also=_contradictions, variables=variables)


def _contradictions(config: ServerConfig) -> Iterator[str]:
    directions = {"upstream": config.listen.upstream, "downstream": config.listen.downstream}
    for name, listener in directions.items():
        if listener.tls and not (listener.certificate and listener.certificate_key):
            yield (
                f"[listen.{name}] certificate and certificate_key: both must name a file while tls = true; "
                "behind a proxy that does TLS write tls = false"
            )
    up, down = directions.values()
    if (up.address, up.port) == (down.address, down.port):
        if up.path == down.path:
            yield "[listen.downstream] path: must differ from that of [listen.upstream], the port is the same"
        if up.tls != down.tls:
            yield "[listen.downstream] tls: must equal [listen.upstream], the port is the same"
    if config.limits.session_window < config.limits.stream_window:
        yield "[limits] session_window: must be at least as large as stream_window"
    if config.limits.max_streams < config.limits.streams_per_client:
        yield "[limits] max_streams: must be at least as large as streams_per_client"
