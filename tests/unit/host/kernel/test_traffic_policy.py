"""Policies as text and as JSON. (tests/netns/test_firewall.py gives them to the kernel.)"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from halftunnel_vpn.host.kernel.traffic_policy import LAN_NETWORKS, Opening, TrafficPolicy, chains

EVERYTHING = TrafficPolicy(
    mark=0x77,
    own_ports=(443, 8443),
    tunnel="tun9",
    lan=LAN_NETWORKS,
    excluded=("203.0.113.0/24",),
    pass_marks=(5,),
    openings=(Opening(networks=("192.0.2.1/32",), protocol="tcp", ports=(80,)),),
)


def rules(policy: TrafficPolicy, chain: str = "guard_output") -> list[str]:
    return list(next(found for found in chains(policy) if found.name == chain).rules)


def test_a_policy_survives_json() -> None:
    for policy in (TrafficPolicy(), EVERYTHING):
        assert TrafficPolicy.from_dict(json.loads(json.dumps(policy.as_dict()))) == policy


@pytest.mark.parametrize(
    "wrong",
    [
        {"lan": ("10.0.0.0/99",)},
        {"excluded": ("nowhere",)},
        {"protect": ("10.0.0.1/8",)},
        {"own_ports": (0,)},
        {"own_ports": (65536,)},
        {"mark": 0},
        {"pass_marks": (2**32,)},
    ],
)
def test_what_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        TrafficPolicy(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [{"protocol": "gre"}, {"ports": (80,)}, {"protocol": "icmp", "ports": (1,)}, {"networks": ("x",)}],
)
def test_an_opening_that_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Opening(**wrong)


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(TypeError):
        TrafficPolicy.from_dict({"wan": []})


def test_a_policy_without_anything_lets_pass_what_a_host_cannot_live_without() -> None:
    assert rules(TrafficPolicy()) == [
        'oifname { "lo" } accept',
        "meta nfproto ipv4 udp sport 68 udp dport 67 accept",
        "ip6 saddr fe80::/10 ip6 daddr { fe80::/10, ff02::1:2, ff05::1:3 } "
        "udp sport 546 udp dport 547 accept",
        "icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept",
        "meta l4proto { tcp, udp } th dport 53 goto refuse",
        "goto refuse",
    ]
    assert rules(TrafficPolicy(), "guard_forward") == [
        'oifname { "lo" } accept',
        "meta mark 0x4854 accept",
        "meta l4proto { tcp, udp } th dport 53 goto refuse",
        "goto refuse",
    ]


def test_names_are_asked_of_no_lan_and_of_no_excluded_network() -> None:
    found = rules(EVERYTHING)
    dns = found.index("meta l4proto { tcp, udp } th dport 53 goto refuse")
    assert all(dns < found.index(rule) for rule in found if "daddr" in rule and "203.0.113" in rule)
    assert dns > found.index("meta mark 0x5 accept")
    assert "th dport 53 goto refuse" not in " ".join(rules(replace(EVERYTHING, intercept_dns=False)))


def test_some_networks_alone_may_be_guarded() -> None:
    policy = TrafficPolicy(protect=("198.51.100.0/24", "::/0"))
    assert rules(policy)[-2:] == [
        "meta nfproto ipv6 goto refuse",
        "ip daddr { 198.51.100.0/24 } goto refuse",
    ]
    assert [chain.policy for chain in chains(policy)] == ["accept"] * 3
    assert [chain.policy for chain in chains(TrafficPolicy())] == ["accept", "drop", "drop"]


def test_networks_that_overlap_are_one_for_the_kernel() -> None:
    policy = TrafficPolicy(lan=("10.0.0.0/8", "10.1.0.0/16"), excluded=("10.2.0.0/16",))
    assert "ip daddr { 10.0.0.0/8 } accept" in rules(policy)
