"""The rules and routes that a wanted state means, as data."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from halftunnel_vpn.host import HostState
from halftunnel_vpn.host.host_state import RULE_SPAN
from halftunnel_vpn.host.kernel.routes import (
    MAIN_TABLE,
    Rule,
    Uplink,
    held_table,
    uplink_table,
    wanted_routes,
    wanted_rules,
)

STATE = HostState(addresses=("10.72.84.2/32", "fd72:84::2/128"), table=900, mark=0x77, rule_priority=1000)


PRIVATE = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"]
GROUPS = ["224.0.0.0/24", "239.0.0.0/8", "255.255.255.255/32"]


def shown(state: HostState, version: int) -> list[str]:
    return [str(rule) for rule in sorted(wanted_rules(state, (version,)), key=lambda rule: rule.priority)]


def test_everything_through_the_tunnel() -> None:
    assert shown(replace(STATE, exclude=("192.0.2.0/24",)), 4) == [
        "IPv4 rule 1000: from all fwmark 0x77 goto 1394",
        "IPv4 rule 1003: from all ipproto 17 dport 53 lookup 900",
        "IPv4 rule 1003: from all ipproto 6 dport 53 lookup 900",
        "IPv4 rule 1004: from all ipproto 17 dport 53 unreachable",
        "IPv4 rule 1004: from all ipproto 6 dport 53 unreachable",
        "IPv4 rule 1005: from all fwmark 0x78 goto 1394",
        "IPv4 rule 1005: from all to 192.0.2.0/24 lookup 254",
        *(f"IPv4 rule 1390: from all to {network} lookup 254 suppress_prefixlength 0" for network in PRIVATE),
        *(f"IPv4 rule 1390: from all to {network} lookup 254" for network in GROUPS),
        "IPv4 rule 1390: from all to 169.254.169.254/32 lookup 254",
        "IPv4 rule 1392: from all lookup 900",
        "IPv4 rule 1393: from all unreachable",
        "IPv4 rule 1394: from all nop",
    ]


def test_some_networks_through_the_tunnel() -> None:
    state = replace(STATE, include=("10.1.0.0/16", "198.51.100.0/24", "10.1.1.7/32"), intercept_dns=False)
    assert shown(state, 4) == [
        "IPv4 rule 1000: from all fwmark 0x77 goto 1394",
        "IPv4 rule 1005: from all fwmark 0x78 goto 1394",
        "IPv4 rule 1296: from all to 10.1.1.7/32 lookup 900",
        "IPv4 rule 1320: from all to 198.51.100.0/24 lookup 900",
        "IPv4 rule 1342: from all to 10.1.0.0/16 lookup 254 suppress_prefixlength 16",
        "IPv4 rule 1344: from all to 10.1.0.0/16 lookup 900",
        "IPv4 rule 1394: from all nop",
    ]
    assert shown(state, 6) == [
        "IPv6 rule 1000: from all fwmark 0x77 goto 1394",
        "IPv6 rule 1005: from all fwmark 0x78 goto 1394",
        "IPv6 rule 1394: from all nop",
    ]


def test_a_cloud_is_asked_about_its_machine_outside_whatever_main_knows() -> None:
    assert "IPv6 rule 1390: from all to fd00:ec2::254/128 lookup 254" in shown(STATE, 6)
    assert not [text for text in shown(replace(STATE, lan=False), 4) if "169.254.169.254" in text]
    named = replace(STATE, include=("169.254.169.254/32",))
    assert [text for text in shown(named, 4) if "169.254.169.254" in text] == [
        "IPv4 rule 1296: from all to 169.254.169.254/32 lookup 900"
    ]


def test_without_a_lan_everything_included_goes_inside() -> None:
    state = replace(STATE, include=("0.0.0.0/0", "10.1.0.0/16"), lan=False)
    assert not [rule for rule in wanted_rules(state, (4,)) if rule.table == MAIN_TABLE]


def test_when_only_programs_go_inside_every_rule_speaks_of_their_mark() -> None:
    state = replace(STATE, only=True, exclude=("192.0.2.0/24",))
    stopping = [rule for rule in wanted_rules(state, (4, 6)) if rule.action in ("lookup", "unreachable")]
    assert stopping and all(rule.mark == 0x79 for rule in stopping)


def test_what_a_gateway_gets_out_of_the_tunnel_does_not_go_in_again() -> None:
    assert "IPv4 rule 1005: from all iif htvpn0 goto 1394" in shown(replace(STATE, gateway=("eth1",)), 4)


def test_our_own_sockets_are_on_their_way_before_any_other_rule_is_added() -> None:
    assert [rule.action for rule in wanted_rules(STATE, (4,))][:2] == ["nop", "goto"]


def test_the_table_ends_unreachable_in_both_families() -> None:
    assert [str(route) for route in wanted_routes(STATE, (4, 6), through_tun=(4, 6))] == [
        "IPv4 default route beneath the TUN",
        "IPv6 default route beneath the TUN",
        "IPv4 default route through the TUN",
        "IPv6 default route through the TUN",
    ]
    for beneath in wanted_routes(STATE, (4,), through_tun=(4,)):
        assert beneath.metric == (10 if beneath.through_tun else 4096)


def test_without_ipv6_its_default_route_is_unreachable_only() -> None:
    assert [route.through_tun for route in wanted_routes(STATE, (6,))] == [False]


def test_a_reply_is_held_only_where_the_tunnel_has_no_route() -> None:
    state = replace(STATE, inbound=True)
    rules = wanted_rules(state, (6,), held=(6,))
    assert [rule.source for rule in rules if rule.table == held_table(state)] == ["2000::/3", "fc00::/7"]
    assert not [rule for rule in wanted_rules(state, (4, 6)) if rule.source]
    assert [route.device for route in wanted_routes(state, (4, 6), through_tun=(4,), held=(6,))] == [
        "",
        "",
        "lo",
        "",
    ]
    assert not [rule for rule in wanted_rules(STATE, (4, 6), held=(4, 6)) if rule.source]


def test_each_uplink_keeps_its_replies() -> None:
    state = replace(STATE, inbound=True)
    uplinks = (Uplink(3, "wan1", ((4, "192.0.2.1"),)), Uplink(4, "wan2", ((4, ""), (6, "fe80::1"))))
    rules = [str(rule) for rule in wanted_rules(state, (4,), uplinks=uplinks) if rule.mark >= 0x7A]
    assert rules == [
        "IPv4 rule 1000: from all fwmark 0x7a goto 1394",
        "IPv4 rule 1000: from all fwmark 0x7e lookup 254 suppress_prefixlength 0",
        "IPv4 rule 1001: from all fwmark 0x7e lookup 904",
        "IPv4 rule 1002: from all fwmark 0x7e goto 1394",
        "IPv4 rule 1000: from all fwmark 0x7f lookup 254 suppress_prefixlength 0",
        "IPv4 rule 1001: from all fwmark 0x7f lookup 905",
        "IPv4 rule 1002: from all fwmark 0x7f goto 1394",
    ]
    routes = wanted_routes(state, (4, 6), through_tun=(4, 6), uplinks=uplinks)
    assert [str(route) for route in routes if route.device] == [
        "IPv4 default route through wan1 in table 904",
        "IPv4 default route through wan2 in table 905",
        "IPv6 default route through wan2 in table 905",
    ]


def test_no_table_of_the_kernels_is_ever_ours() -> None:
    state = replace(STATE, inbound=True, table=252)
    assert held_table(state) == 1253
    assert uplink_table(state, Uplink(1, "wan1", ())) == 1254


networks = st.builds(
    lambda number, length: str(ipaddress.ip_network((number, length), strict=False)),
    st.integers(0, 2**32 - 1),
    st.integers(0, 32),
)
numbers = st.integers(0, 2**32 - 1) | st.integers(0, 2**24 - 1).map(lambda host: 10 << 24 | host)


@given(
    included=st.lists(networks, max_size=6),
    on_the_lan=st.lists(networks.filter(lambda text: not text.endswith("/0")), max_size=6),
    number=numbers,
)
def test_the_longest_prefix_decides_as_if_all_stood_in_one_table(
    included: list[str], on_the_lan: list[str], number: int
) -> None:
    rules = wanted_rules(replace(STATE, include=tuple(included), intercept_dns=False), (4,))
    destination = ipaddress.ip_address(number)
    main = longest(["0.0.0.0/0", *on_the_lan], destination)
    tunnel = longest(included, destination)
    at_home = main > tunnel and longest(PRIVATE, destination) >= 0
    in_a_group = longest(GROUPS, destination) > tunnel
    expected = "main" if tunnel < 0 or at_home or in_a_group else "tunnel"
    assert decide(rules, main, destination) == expected
    assert all(1000 <= rule.priority < 1000 + RULE_SPAN for rule in rules)


def longest(texts: list[str], destination: ipaddress.IPv4Address | ipaddress.IPv6Address) -> int:
    """The length of the longest prefix that holds the destination, -1 when none does."""
    holding = [ipaddress.ip_network(text) for text in texts if destination in ipaddress.ip_network(text)]
    return max((network.prefixlen for network in holding), default=-1)


def decide(rules: list[Rule], main: int, destination: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """What the kernel makes of the rules for an unmarked packet, ``main`` being main's longest prefix."""
    for rule in sorted(rules, key=lambda rule: rule.priority):
        matches = not rule.destination or destination in ipaddress.ip_network(rule.destination)
        if rule.mark or rule.action != "lookup" or not matches:
            continue
        if rule.table != MAIN_TABLE:
            return "tunnel"
        if main > rule.suppress:
            return "main"
    return "main"
