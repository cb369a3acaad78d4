"""What a profile means to each part of the client."""

from __future__ import annotations

import ipaddress

import pytest

from halftunnel_vpn.client.host.road_resolver import RoadResolver
from halftunnel_vpn.client.settings import (
    dial_options,
    dns_config,
    flow_config,
    host_state,
    lockdown_policy,
    traffic_policy,
)
from halftunnel_vpn.config.client import parse_client


@pytest.fixture
def profile(profile_text):
    """The profile with further sections, as text."""
    return lambda *more: parse_client("\n".join([profile_text, *more]))


@pytest.fixture
def options(counters):
    """The dial options of a road."""

    def make(profile, road="upstream"):
        return dial_options(profile, getattr(profile, road), RoadResolver(1, counters))

    return make


def test_a_profile_without_more_trusts_the_machine_and_marks_its_sockets(profile, options):
    made = options(profile())
    assert made.ca_pem is None and made.certificate_sha256 == ()
    assert made.server_name is None and made.host_header is None and made.proxy is None
    assert made.mark == 18516 and made.connect_timeout == 10.0
    assert made.resolve is not None


def test_each_road_has_names_of_its_own_and_they_share_a_proxy(profile, options):
    read = profile(
        "[upstream.tls]",
        'server_name = "front.example"',
        'host_header = "hidden.example"',
        "[proxy]",
        'url = "http://user:word@192.0.2.8:3128"',
        "[routes]",
        "mark = 7",
        "[limits]",
        'connect_timeout = "3s"',
    )
    up, down = options(read), options(read, "downstream")
    assert (up.server_name, up.host_header) == ("front.example", "hidden.example")
    assert (down.server_name, down.host_header) == (None, None)
    assert up.proxy == down.proxy == "http://user:word@192.0.2.8:3128"
    assert up.mark == 7 and up.connect_timeout == 3.0


def test_a_pinned_certificate(profile, options):
    fingerprint = bytes(range(32))
    made = options(profile("[tls]", f'certificate_sha256 = ["{fingerprint.hex()}"]'))
    assert made.certificate_sha256 == (fingerprint,) and made.ca_pem is None


def test_flows_know_the_mtu_and_the_machines_own_addresses(profile):
    made = flow_config(profile("[tun]", "mtu = 1400", "[limits]", "max_flows = 100", 'udp_idle = "10s"'))
    assert (made.tcp.mss_v4, made.tcp.mss_v6) == (1360, 1340)
    assert made.addresses == tuple(
        ipaddress.ip_address(text).packed for text in ("10.73.72.1", "fd48:5456:504e::1")
    )
    assert (made.max_tcp_flows, made.max_udp_flows, made.udp_idle) == (100, 100, 10.0)
    assert made.intercept_dns and not made.tcp.answer_at_once


def test_flows_leave_dns_alone_when_told(profile):
    made = flow_config(profile("[dns]", 'mode = "off"', "[tcp]", "answer_at_once = true"))
    assert not made.intercept_dns and made.tcp.answer_at_once


def test_dns_rules(profile):
    made = dns_config(
        profile(
            "[dns]",
            'mode = "fake-ip"',
            'block = ["ads.example"]',
            'block_answer = "zero"',
            "cache_entries = 5",
            'fake_networks = ["198.51.100.0/24", "2001:db8:f::/96"]',
            'fake_exclude = ["local.example"]',
            "[dns.hosts]",
            '"printer.example" = ["192.0.2.3"]',
            "[dns.split]",
            '"corp.example" = ["192.0.2.53", "2001:db8::53"]',
        )
    )
    assert made.mode == "fake-ip"
    assert made.hosts == {"printer.example": ["192.0.2.3"]}
    assert made.split == {"corp.example": [("192.0.2.53", 53), ("2001:db8::53", 53)]}
    assert tuple(made.block) == ("ads.example",) and made.block_answer == "zero"
    assert made.cache.max_entries == 5
    assert (made.fake_network_v4, made.fake_network_v6) == ("198.51.100.0/24", "2001:db8:f::/96")
    assert tuple(made.fake_exclude) == ("local.example",)


@pytest.mark.parametrize("mode", ["forward", "off"])
def test_dns_is_forwarded_unless_fake(profile, mode):
    assert dns_config(profile("[dns]", f'mode = "{mode}"')).mode == "forward"


@pytest.mark.parametrize("has_ipv6", [True, False])
def test_the_host_is_to_look_as_the_profile_says(profile, has_ipv6):
    state = host_state(
        profile(
            "[routes]",
            'include = ["192.0.2.0/24"]',
            'exclude = ["192.0.2.9/32"]',
            "table = 9",
            "priority = 8",
        ),
        has_ipv6=has_ipv6,
    )
    assert (state.tun, state.mtu, state.table, state.rule_priority, state.mark) == (
        "htvpn0",
        1500,
        9,
        8,
        18516,
    )
    assert state.addresses == ("10.73.72.1/32", "fd48:5456:504e::1/128")
    assert (state.include, state.exclude) == (("192.0.2.0/24",), ("192.0.2.9/32",))
    assert state.dns == ("10.73.72.53", "fd48:5456:504e::53") and state.intercept_dns
    assert state.ipv6 is has_ipv6


def test_the_hosts_resolver_is_left_alone_when_told(profile):
    state = host_state(profile("[dns]", 'mode = "off"'), has_ipv6=True)
    assert state.dns is None and not state.intercept_dns


def test_the_kill_switch_is_off_unless_somebody_asks_for_it(profile):
    assert traffic_policy(profile()) is None and lockdown_policy(profile()) is None
    assert lockdown_policy(profile("[protection]", 'kill_switch = "on"')) is None


def test_a_kill_switch_lets_the_legs_pass_and_after_down_not_even_them(profile):
    made = profile(
        "[protection]", 'kill_switch = "always"', "[routes]", 'exclude = ["203.0.113.0/24"]', "mark = 7"
    )
    policy = traffic_policy(made, tunnel="htvpn0")
    assert (policy.mark, policy.own_ports, policy.tunnel) == (7, (80, 443), "htvpn0")
    assert policy.excluded == ("203.0.113.0/24",) and policy.protect == ("0.0.0.0/0", "::/0")
    assert "192.168.0.0/16" in policy.lan and policy.intercept_dns
    locked = lockdown_policy(made)
    assert locked.own_ports == () and locked.tunnel is None and locked.lan == policy.lan


def test_legs_through_a_proxy_go_to_its_port_alone(profile):
    made = profile(
        "[protection]", 'kill_switch = "on"', "allow_lan = false", "[proxy]", 'url = "http://10.0.0.1:3128"'
    )
    policy = traffic_policy(made)
    assert policy.own_ports == (3128,) and policy.lan == ()


def test_our_own_packets_reach_port_80_only_to_ask_for_a_portal(profile):
    made = profile("[protection]", 'kill_switch = "on"', "portal_probe = false")
    assert traffic_policy(made).own_ports == (443,)
