"""The list of open flows: their ends, the names of fake addresses, and its bound."""

from __future__ import annotations

from ipaddress import ip_address

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6

from halftunnel_vpn.flow.flow_ends import FlowEnds


def raw(address: str) -> bytes:
    return ip_address(address).packed


def test_open_flows_are_listed_up_to_a_limit(world):
    world.dns.names[raw("198.18.0.9")] = "example.org"
    world.host_sends(IP(src="10.73.72.1", dst="198.18.0.9") / TCP(sport=4000, dport=443, flags="S"))
    world.host_sends(IPv6(src="fd48::1", dst="2001:db8:100::2") / TCP(sport=4001, dport=80, flags="S"))
    world.host_sends(IP(src="10.73.72.1", dst="198.51.100.2") / UDP(sport=5000, dport=123) / b"x")
    world.host_sends(IP(src="10.73.72.1", dst="198.51.100.2") / ICMP(type=8, id=7, seq=1) / b"x")
    expected = [
        FlowEnds("tcp", raw("10.73.72.1"), 4000, raw("198.18.0.9"), 443, "example.org"),
        FlowEnds("tcp", raw("fd48::1"), 4001, raw("2001:db8:100::2"), 80),
        FlowEnds("udp", raw("10.73.72.1"), 5000),
        FlowEnds("icmp", raw("10.73.72.1"), 7),
    ]
    assert world.tracker.ends(10) == expected
    for limit in range(5):
        assert world.tracker.ends(limit) == expected[:limit]
