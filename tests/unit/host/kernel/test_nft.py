"""Our nft table as text. (The tests in namespaces give it to the kernel.)"""

from __future__ import annotations

from dataclasses import replace

from halftunnel_vpn.host import HostState
from halftunnel_vpn.host.kernel.nft import Ruleset, chains, render

STATE = HostState(addresses=("10.72.84.2/32", "fd72:84::2/128"), tun="tun9", mark=0x77)


def test_the_table_is_replaced_as_a_whole() -> None:
    text = render(Ruleset(chains(STATE)))
    assert text.splitlines()[:3] == [
        "add table inet halftunnel",
        "delete table inet halftunnel",
        "table inet halftunnel {",
    ]
    assert text.count("{") == text.count("}") and text.endswith("}\n")


def test_there_is_a_chain_for_each_purpose() -> None:
    assert [chain.name for chain in chains(STATE)] == [
        "spoofing",
        "replies",
        "own_connections",
        "dns_output",
        "dns_forward",
    ]


def test_without_interception_port_53_is_not_mentioned() -> None:
    text = render(Ruleset(chains(replace(STATE, intercept_dns=False))))
    assert "53" not in text
    assert "dns" not in text


def test_the_tunnels_addresses_are_guarded_in_both_families() -> None:
    spoofing = chains(STATE)[0]
    assert spoofing.rules == (
        'iifname != "tun9" ip daddr { 10.72.84.2 } fib saddr type != local drop',
        'iifname != "tun9" ip6 daddr { fd72:84::2 } fib saddr type != local drop',
    )
    assert len(chains(replace(STATE, ipv6=False))[0].rules) == 1
