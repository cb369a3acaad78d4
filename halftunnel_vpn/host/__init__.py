"""The host's side of a tunnel: addresses, policy routing, one nft table, the resolver, and their undoing."""

from __future__ import annotations

from halftunnel_vpn.host.host import Host
from halftunnel_vpn.host.host_state import HostState
from halftunnel_vpn.host.kernel.desired import Desired
from halftunnel_vpn.host.kernel.traffic_policy import TrafficPolicy
from halftunnel_vpn.host.preflight import preflight
from halftunnel_vpn.host.resolver.backends import system_servers
from halftunnel_vpn.host.resolver.step import Takeover

__all__ = ["Desired", "Host", "HostState", "Takeover", "TrafficPolicy", "preflight", "system_servers"]
