"""Derive the settings of each part of the client from the profile."""

from __future__ import annotations

import dataclasses
from urllib.parse import urlsplit

from halftunnel_vpn.client.host.road_resolver import RoadResolver
from halftunnel_vpn.config.client import ClientProfile, views
from halftunnel_vpn.config.exits import RoadConfig
from halftunnel_vpn.dns.cache import CacheLimits
from halftunnel_vpn.dns.dns_config import DnsServiceConfig
from halftunnel_vpn.dns.upstream import DNS_PORT
from halftunnel_vpn.flow.flow_config import FlowConfig
from halftunnel_vpn.flow.tcp.endpoint_config import TcpEndpointConfig
from halftunnel_vpn.host.host_state import HostState, excluded_mark
from halftunnel_vpn.host.kernel.traffic_policy import LAN_NETWORKS, TrafficPolicy
from halftunnel_vpn.transport.dial import DialOptions

_HEADERS = {4: 40, 6: 60}
"""Bytes of IP and TCP header without options, by IP version."""

PROBE_PORT = 80
"""The TCP port on which a captive portal answers in place of every host."""

_DEFAULT_PORTS = {"ws": 80, "wss": 443, "http": 80}
"""The default ports of URL schemes."""


def dial_options(profile: ClientProfile, road: RoadConfig, resolver: RoadResolver) -> DialOptions:
    """Return the options for opening legs of ``road``."""
    tls = road.tls
    return DialOptions(
        ca_pem=tls.ca or None,
        certificate_sha256=tls.certificate_sha256,
        server_name=tls.server_name,
        host_header=tls.host_header,
        headers=tls.headers,
        proxy=profile.proxy.url,
        mark=profile.routes.mark,
        connect_timeout=profile.limits.connect_timeout,
        resolve=resolver.resolve,
        congestion=profile.limits.congestion,
    )


def flow_config(profile: ClientProfile) -> FlowConfig:
    """Return the limits of the flow tracker."""
    return FlowConfig(
        addresses=tuple(interface.ip.packed for interface in profile.tun.addresses),
        resolvers=tuple(address.packed for address in profile.dns.addresses),
        max_tcp_flows=profile.limits.max_flows,
        max_udp_flows=profile.limits.max_flows,
        udp_idle=profile.limits.udp_idle,
        intercept_dns=profile.dns.mode != "off",
        answer_known_at_once=profile.tcp.answer_known_at_once,
        tcp=TcpEndpointConfig(
            mss_v4=profile.tun.mtu - _HEADERS[4],
            mss_v6=profile.tun.mtu - _HEADERS[6],
            max_window=profile.limits.stream_window,
            answer_at_once=profile.tcp.answer_at_once,
        ),
    )


def dns_config(profile: ClientProfile) -> DnsServiceConfig:
    """Return the rules of the resolver."""
    dns = profile.dns
    fake = {network.version: str(network) for network in dns.fake_networks}
    defaults = DnsServiceConfig()
    return DnsServiceConfig(
        mode="fake-ip" if dns.mode == "fake-ip" else "forward",
        hosts={name: [str(address) for address in found] for name, found in dns.hosts.items()},
        block=dns.block,
        block_answer=dns.block_answer,
        split={
            suffix: [(str(address), DNS_PORT) for address in servers] for suffix, servers in dns.split.items()
        },
        cache=CacheLimits(
            max_entries=dns.cache_entries, max_stale=int(dns.serve_stale), prefetch=dns.prefetch
        ),
        fake_network_v4=fake.get(4, defaults.fake_network_v4),
        fake_network_v6=fake.get(6, defaults.fake_network_v6),
        fake_exclude=dns.fake_exclude,
    )


def host_state(profile: ClientProfile, *, has_ipv6: bool) -> HostState:
    """Return the wanted state of this host while the tunnel is up."""
    routes = profile.routes
    only = routes.programs == "only"
    resolvers = tuple(str(address) for address in profile.dns.addresses)
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
        dns=resolvers if intercepts and not only else None,
        resolvers=resolvers,
        lan=routes.lan,
        inbound=keeps_inbound(profile),
        only=only,
        gateway=routes.gateway,
        ipv6=has_ipv6,
        intercept_dns=intercepts,
    )


def traffic_policy(profile: ClientProfile, *, tunnel: str | None = None) -> TrafficPolicy | None:
    """Return what may leave this host outside the tunnel while it is wanted; None if the kill switch is off.

    ``tunnel`` is the tunnel's device, through which everything may leave, if it exists.
    """
    routes, protection = profile.routes, profile.protection
    if protection.kill_switch == "off" or routes.programs == "only":
        return None
    return TrafficPolicy(
        mark=routes.mark,
        own_ports=tuple(sorted({*_road_ports(profile), *probe_ports(profile)})),
        tunnel=tunnel,
        pass_marks=(excluded_mark(routes.mark),),
        lan=LAN_NETWORKS if protection.allow_lan else (),
        excluded=tuple(str(network) for network in routes.exclude),
        protect=tuple(str(network) for network in routes.include),
        intercept_dns=profile.dns.mode != "off",
        table=routes.table,
        rule_priority=routes.priority,
        inbound=routes.inbound,
    )


def keeps_inbound(profile: ClientProfile) -> bool:
    """Return whether replies to connections from outside need our rules. If only chosen programs use the
    tunnel, all other traffic leaves as without it."""
    return profile.routes.inbound and profile.routes.programs == "all"


def lockdown_policy(profile: ClientProfile) -> TrafficPolicy | None:
    """Return what may leave this host while no tunnel is wanted; None (everything) unless ``always``."""
    policy = traffic_policy(profile)
    if policy is None or profile.protection.kill_switch != "always":
        return None
    return dataclasses.replace(policy, own_ports=())


def probe_ports(profile: ClientProfile) -> tuple[int, ...]:
    """Return the TCP ports for probing the exit's host for a captive portal; empty for no probe.

    A proxy of the profile would answer in place of that host, so there is no probe with one.
    """
    return (PROBE_PORT,) if profile.protection.portal_probe and profile.proxy.url is None else ()


def _road_ports(profile: ClientProfile) -> tuple[int, ...]:
    """Return the TCP ports to which legs to all exits are dialled: that of the proxy if there is one."""
    urls = [profile.proxy.url] if profile.proxy.url else []
    if not urls:
        urls = [
            url for view in views(profile) for road in (view.upstream, view.downstream) for url in road.urls
        ]
    parts = [urlsplit(url) for url in urls]
    return tuple(sorted({part.port or _DEFAULT_PORTS[part.scheme] for part in parts}))
