"""Where the exit opens sockets: every denied range under every spelling that reaches it."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halftunnel_vpn.inet.special_purpose import DENIED_BY_DEFAULT, embedded_ipv4
from halftunnel_vpn.server.egress import MAX_REMEMBERED, EgressPolicy

DENIED_V4 = [
    "0.0.0.0", "0.255.255.255",
    "10.0.0.0", "10.255.255.255",
    "100.64.0.1", "100.100.100.200", "100.127.255.255",
    "127.0.0.1", "127.255.255.255",
    "169.254.0.1", "169.254.169.254",
    "172.16.0.0", "172.31.255.255",
    "192.0.0.192",
    "192.168.0.1", "192.168.255.255",
    "198.18.0.0", "198.19.255.255",
    "224.0.0.1", "239.255.255.250",
    "240.0.0.1", "255.255.255.255",
    "168.63.129.16",
]  # fmt: skip
NEXT_TO_DENIED_V4 = [
    "1.0.0.0", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0",
    "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "191.255.255.255", "192.0.1.0",
    "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255", "168.63.129.15",
    "168.63.129.17", "8.8.8.8",
]  # fmt: skip
DENIED_V6 = [
    "::", "::1",
    "fc00::", "fd00:ec2::254", "fdff:ffff::1",
    "fe80::1", "febf:ffff::1",
    "fec0::1",
    "ff02::1", "ff0e::1",
    "100::1",
    "2001:db8::1",
    "64:ff9b:1::808:808", "64:ff9b:1:7f00:0:100::",
]  # fmt: skip
ALLOWED_V6 = ["2606:4700:4700::1111", "2001:4860:4860::8888", "fbff::1", "64:ff9b:2::1", "2a00::1", "101::1"]

SPELLINGS = {
    "v4-mapped": lambda v4: ipaddress.IPv6Address(0xFFFF_0000_0000 | int(v4)),
    "v4-compatible": lambda v4: ipaddress.IPv6Address(int(v4)),
    "SIIT": lambda v4: ipaddress.IPv6Address(0xFFFF << 48 | int(v4)),
    "NAT64": lambda v4: ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) | int(v4)),
    "local NAT64": lambda v4: ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b:1::")) | int(v4)),
    "6to4": lambda v4: ipaddress.IPv6Address(0x2002 << 112 | int(v4) << 80 | 1),
    "6to4, any host": lambda v4: ipaddress.IPv6Address(0x2002 << 112 | int(v4) << 80 | 0xABCD << 64 | 0x1234),
    "Teredo client": lambda v4: ipaddress.IPv6Address(
        0x2001_0000 << 96 | 0x0808_0808 << 64 | 0x8000_1234 << 32 | (int(v4) ^ 0xFFFF_FFFF)
    ),
    "Teredo server": lambda v4: ipaddress.IPv6Address(
        0x2001_0000 << 96 | int(v4) << 64 | 0x8000_1234 << 32 | (0x0808_0808 ^ 0xFFFF_FFFF)
    ),
}


def permits(policy, text):
    return policy.permits(ipaddress.ip_address(text).packed)


@pytest.fixture
def policy():
    """Nothing configured; the exit has two addresses of its own."""
    policy = EgressPolicy()
    policy.set_own_addresses(
        frozenset({ipaddress.ip_address("203.0.113.7"), ipaddress.ip_address("2606:4700::7")})
    )
    return policy


@pytest.mark.parametrize("address", DENIED_V4 + DENIED_V6)
def test_denied_by_default(policy, address):
    assert not permits(policy, address)


@pytest.mark.parametrize("address", NEXT_TO_DENIED_V4 + ALLOWED_V6)
def test_everything_beside_is_allowed(policy, address):
    assert permits(policy, address)


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("address", [*DENIED_V4, "203.0.113.7"])
def test_a_denied_ipv4_address_is_denied_under_every_spelling(policy, address, spelling):
    spelled = SPELLINGS[spelling](ipaddress.IPv4Address(address))
    assert not permits(policy, spelled), f"{spelled} reaches {address}"


@pytest.mark.parametrize("spelling", [name for name in SPELLINGS if name != "local NAT64"])
def test_an_allowed_ipv4_address_is_allowed_under_every_spelling_but_local_ones(policy, spelling):
    assert permits(policy, SPELLINGS[spelling](ipaddress.IPv4Address("9.9.9.9")))


def test_every_range_of_the_list_is_denied_from_end_to_end(policy):
    for network in DENIED_BY_DEFAULT:
        assert not permits(policy, network[0]) and not permits(policy, network[-1]), network


@given(st.ip_addresses(v=4))
def test_no_spelling_reaches_what_is_denied(address):
    policy = EgressPolicy()
    if not permits(policy, address):
        for spell in SPELLINGS.values():
            assert not permits(policy, spell(address))


@given(st.ip_addresses(v=6))
def test_an_answer_is_remembered_as_it_was(address):
    policy = EgressPolicy()
    assert permits(policy, address) is permits(policy, address)


@pytest.mark.parametrize("own", ["203.0.113.7", "2606:4700::7"])
def test_the_exit_itself_is_out_of_reach_until_allowed(policy, own):
    assert not permits(policy, own)
    policy = EgressPolicy(allow=[ipaddress.ip_network(own)])
    policy.set_own_addresses(frozenset({ipaddress.ip_address(own)}))
    assert permits(policy, own)


def test_a_change_of_own_addresses_counts_at_once(policy):
    assert permits(policy, "198.51.100.9")
    policy.set_own_addresses(frozenset({ipaddress.ip_address("198.51.100.9")}))
    assert not permits(policy, "198.51.100.9")
    assert permits(policy, "203.0.113.7"), "it has this one no more"


def test_what_is_allowed_is_no_more_than_that():
    policy = EgressPolicy(allow=[ipaddress.ip_network("10.1.0.0/16")])
    assert permits(policy, "10.1.2.3") and permits(policy, "::ffff:10.1.2.3")
    assert not permits(policy, "10.2.0.1") and not permits(policy, "::ffff:10.2.0.1")
    assert permits(policy, "8.8.8.8")


def test_deny_wins_over_allow():
    policy = EgressPolicy(
        allow=[ipaddress.ip_network("10.0.0.0/8")],
        deny=[ipaddress.ip_network("10.9.0.0/16"), ipaddress.ip_network("8.8.8.0/24")],
    )
    assert permits(policy, "10.8.0.1")
    for address in ("10.9.0.1", "8.8.8.8", "64:ff9b::808:808", "::ffff:8.8.8.8", "2002:808:808::1"):
        assert not permits(policy, address)


@pytest.mark.parametrize("allowed", ["::/0", "::ffff:0:0/96", "64:ff9b::/96", "2002::/16", "64:ff9b:1::/48"])
def test_an_ipv6_network_that_is_allowed_does_not_speak_for_the_ipv4_inside(allowed):
    policy = EgressPolicy(allow=[ipaddress.ip_network(allowed)])
    for spell in SPELLINGS.values():
        assert not permits(policy, spell(ipaddress.IPv4Address("127.0.0.1")))


def test_loopback_of_ipv6_can_be_allowed_though_it_looks_v4_compatible():
    policy = EgressPolicy(allow=[ipaddress.ip_network("::1/128")])
    assert permits(policy, "::1") and not permits(policy, "::") and not permits(policy, "::2")


def test_answers_are_remembered_within_a_bound(policy):
    for number in range(MAX_REMEMBERED + 100):
        policy.permits((0x0800_0000 + number).to_bytes(4, "big"))
    assert len(policy._remembered) <= MAX_REMEMBERED
    assert not permits(policy, "127.0.0.1") and permits(policy, "8.0.0.1")


RFC_6052_TABLE = [
    # RFC 6052 section 2.4: 192.0.2.33 behind prefixes of every length.
    ("2001:db8::/32", "2001:db8:c000:221::"),
    ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
    ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
    ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
    ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
    ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
]


@pytest.mark.parametrize(("prefix", "address"), RFC_6052_TABLE)
def test_an_address_behind_a_translator_of_the_network_is_found(prefix, address):
    found = embedded_ipv4(ipaddress.IPv6Address(address), [ipaddress.IPv6Network(prefix)])
    assert found == (ipaddress.IPv4Address("192.0.2.33"),)


@pytest.mark.parametrize(
    ("prefix", "closed", "open_"),
    [
        ("2a00:64::/96", "2a00:64::10.0.0.1", "2a00:64::8.8.8.8"),
        ("2a00:64::/32", "2a00:64:a9fe:a9fe::", "2a00:64:808:808::"),
    ],
)
def test_a_translator_of_the_network_leads_to_nothing_that_is_closed(prefix, closed, open_):
    closed, open_ = (ipaddress.IPv6Address(text).packed for text in (closed, open_))
    unaware = EgressPolicy()
    assert unaware.permits(closed)
    unaware.set_rules(nat64=[ipaddress.IPv6Network(prefix)])
    assert not unaware.permits(closed) and unaware.permits(open_)
    allowed = EgressPolicy(nat64=[ipaddress.IPv6Network(prefix)], allow=[ipaddress.ip_network(prefix)])
    assert not allowed.permits(closed), "a prefix that is allowed does not speak for what is behind it"


def test_while_its_own_addresses_are_not_known_an_exit_permits_what_is_allowed_by_name_only() -> None:
    policy = EgressPolicy(allow=[ipaddress.ip_network("10.1.0.0/16")])
    public, named = ipaddress.ip_address("8.8.8.8").packed, ipaddress.ip_address("10.1.2.3").packed
    assert policy.permits(public)
    policy.set_own_addresses(None)
    assert not policy.permits(public) and policy.permits(named)
    policy.set_own_addresses(frozenset())
    assert policy.permits(public)
