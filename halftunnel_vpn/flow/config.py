"""Bounds and times of the flow tracker."""

from __future__ import annotations

from dataclasses import dataclass, field

from halftunnel_vpn.flow.tcp.config import TcpEndpointConfig


@dataclass(frozen=True, slots=True)
class FlowConfig:
    """Times are seconds.

    ``addresses`` are this host's own on the TUN device (4 or 16 bytes each), ``resolvers`` those of our own
    resolver inside the tunnel.
    """

    addresses: tuple[bytes, ...] = ()
    resolvers: tuple[bytes, ...] = ()
    max_tcp_flows: int = 65536
    max_udp_flows: int = 65536
    max_icmp_flows: int = 4096
    udp_idle: float = 300.0
    icmp_idle: float = 60.0
    intercept_dns: bool = True
    tcp: TcpEndpointConfig = field(default_factory=TcpEndpointConfig)
