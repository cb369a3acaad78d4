"""The TCP endpoints that terminate the host's connections in user space. Pure, no I/O.

One connection is one :class:`~halftunnel_vpn.flow.tcp.endpoint.TcpEndpoint`. Its parts, lowest first:
``endpoint_config``, ``tcp_states``; ``round_trip``, ``lazy_timer``, ``congestion``; ``reassembly`` and
``receiving``; ``scoreboard`` and ``recovery``; ``send_queue``, ``host_window``, ``outgoing`` and ``sending``;
``syn_options``; ``lifecycle``.
"""

from halftunnel_vpn.flow.tcp.congestion import NewReno, Unlimited
from halftunnel_vpn.flow.tcp.endpoint import TcpEndpoint
from halftunnel_vpn.flow.tcp.endpoint_config import TcpEndpointConfig
from halftunnel_vpn.flow.tcp.lifecycle import EndpointOwner, TcpContext
from halftunnel_vpn.flow.tcp.outgoing import answer_stray
from halftunnel_vpn.flow.tcp.tcp_states import TcpState

__all__ = [
    "EndpointOwner",
    "NewReno",
    "TcpContext",
    "TcpEndpoint",
    "TcpEndpointConfig",
    "TcpState",
    "Unlimited",
    "answer_stray",
]
