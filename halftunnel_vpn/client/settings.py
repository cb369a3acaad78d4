"""What the profile means to each part of the client."""

from __future__ import annotations

from halftunnel_vpn.client.resolving import RoadResolver
from halftunnel_vpn.config.client import ClientProfile, RoadConfig
from halftunnel_vpn.dns.cache import CacheLimits
from halftunnel_vpn.dns.config import DnsConfig
from halftunnel_vpn.dns.upstream import DNS_PORT
from halftunnel_vpn.flow.config import FlowConfig
from halftunnel_vpn.flow.tcp.config import TcpConfig
from halftunnel_vpn.host.state import HostState
from halftunnel_vpn.transport.dial import DialOptions

_HEADERS = {4: 40, 6: 60}
"""Bytes of IP and TCP header without options, by IP version."""


def dial_options(profile: ClientProfile, road: RoadConfig, resolver: RoadResolver) -> DialOptions:
    """How to open legs on ``road``."""
    tls = road.tls
    return DialOptions(
        ca_pem=tls.ca or None,
        certificate_sha256=tls.certificate_sha256,
        server_name=tls.server_name,
        host_header=tls.host_header,
        proxy=profile.proxy.url,
        mark=profile.routes.mark,
        connect_timeout=profile.limits.connect_timeout,
        resolve=resolver.resolve,
    )


def flow_config(profile: ClientProfile) -> FlowConfig:
    """Bounds of the flow tracker."""
    return FlowConfig(
        addresses=tuple(interface.ip.packed for interface in profile.tun.addresses),
        max_tcp_flows=profile.limits.max_flows,
        max_udp_flows=profile.limits.max_flows,
        udp_idle=profile.limits.udp_idle,
        intercept_dns=profile.dns.mode != "off",
        tcp=TcpConfig(
            mss_v4=profile.tun.mtu - _HEADERS[4],
            mss_v6=profile.tun.mtu - _HEADERS[6],
            max_window=profile.limits.stream_window,
            answer_at_once=profile.tcp.answer_at_once,
        ),
    )


def dns_config(profile: ClientProfile) -> DnsConfig:
    """Rules of the resolver."""
    dns = profile.dns
    fake = {network.version: str(network) for network in dns.fake_networks}
    defaults = DnsConfig()
    return DnsConfig(
        mode="fake-ip" if dns.mode == "fake-ip" else "forward",
        hosts={name: [str(address) for address in found] for name, found in dns.hosts.items()},
        block=dns.block,
        block_answer=dns.block_answer,
        split={
            suffix: [(str(address), DNS_PORT) for address in servers] for suffix, servers in dns.split.items()
        },
        cache=CacheLimits(max_entries=dns.cache_entries),
        fake_network_v4=fake.get(4, defaults.fake_network_v4),
        fake_network_v6=fake.get(6, defaults.fake_network_v6),
        fake_exclude=dns.fake_exclude,
    )


def host_state(profile: ClientProfile, *, has_ipv6: bool) -> HostState:
    """What this host is to look like while the tunnel is up."""
    routes = profile.routes
    intercepts = profile.dns.mode != "off"
    return HostState(
        tun=profile.tun.name,
        mtu=profile.tun.mtu,
        addresses=tuple(str(interface) for interface in profile.tun.addresses),
        table=routes.table,
        mark=routes.mark,
        rule_priority=routes.priority,
        include=tuple(str(network) for network in routes.include),
        exclude=tuple(str(network) for network in routes.exclude),
        dns=tuple(str(address) for address in profile.dns.addresses) if intercepts else None,
        ipv6=has_ipv6,
        intercept_dns=intercepts,
    )
