"""The limits and time-outs of the flow tracker."""

from __future__ import annotations

from dataclasses import dataclass, field

from halftunnel_vpn.flow.tcp.endpoint_config import TcpEndpointConfig


@dataclass(frozen=True, slots=True)
class FlowConfig:
    """Limits are numbers of flows. Times are in seconds.

    ``addresses`` are the addresses of this host on the TUN device (4 or 16 bytes each). ``resolvers`` are the
    addresses of our own resolver inside the tunnel.
    """

    addresses: tuple[bytes, ...] = ()
    resolvers: tuple[bytes, ...] = ()
    max_tcp_flows: int = 65536
    max_udp_flows: int = 65536
    max_icmp_flows: int = 4096
    udp_idle: float = 300.0
    icmp_idle: float = 60.0
    intercept_dns: bool = True
    answer_known_at_once: bool = True
    """Answer a SYN to a destination that the exit connected to lately before it has connected again."""
    tcp: TcpEndpointConfig = field(default_factory=TcpEndpointConfig)
