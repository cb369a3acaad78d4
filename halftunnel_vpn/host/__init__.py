"""The host's side of a tunnel: addresses, policy routing, one nft table, the resolver, and the way back."""

from __future__ import annotations

from halftunnel_vpn.host.firewall import TrafficPolicy
from halftunnel_vpn.host.network import HostNetwork
from halftunnel_vpn.host.preflight import preflight
from halftunnel_vpn.host.resolver.backends import system_servers
from halftunnel_vpn.host.resolver.step import Takeover
from halftunnel_vpn.host.state import HostState

__all__ = ["HostNetwork", "HostState", "Takeover", "TrafficPolicy", "preflight", "system_servers"]
