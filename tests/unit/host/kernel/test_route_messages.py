"""Rules and routes as messages to the kernel, and what the kernel may answer."""

from __future__ import annotations

import ipaddress
import struct

import pytest

from halftunnel_vpn.host.kernel import route_messages, rtnetlink
from halftunnel_vpn.host.kernel.routes import LOOPBACK, Route, Rule
from halftunnel_vpn.host.kernel.rtnetlink import Message

RULES = [
    Rule(4, 5000, "goto", goto=5394, mark=0x485401),
    Rule(6, 5003, "lookup", table=72540, protocol=17, port=53),
    Rule(4, 5005, "lookup", table=254, destination="10.0.0.0/8", suppress=0),
    Rule(6, 5006, "lookup", table=100, source="2000::/3", device="lo", destination="fd00::/8"),
    Rule(4, 5393, "unreachable"),
    Rule(6, 5394, "nop"),
]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_rule_is_read_as_it_was_sent(rule):
    header, attributes = route_messages.rule_message(rule)
    sent = Message(header, rtnetlink.unpack(rtnetlink.pack(attributes)))
    assert route_messages.read_rule(sent, rule.version) == rule
    assert route_messages.read_rule(sent, 10 - rule.version) is None


def test_a_rule_of_another_program_is_not_ours():
    header, attributes = route_messages.rule_message(RULES[0])
    assert route_messages.read_rule(Message(header, {**attributes, 21: b"\x03"}), 4) is None
    assert route_messages.read_rule(Message(header, {}), 4) is None


@pytest.mark.parametrize(
    "route",
    [Route(4, True, 72540), Route(6, True, 200), Route(4, False, 72540), Route(6, False, 72540)],
    ids=str,
)
def test_a_route_is_read_as_it_was_sent(route):
    header, attributes = route_messages.route_message(route, 3 if route.through_tun else 0)
    sent = Message(header, rtnetlink.unpack(rtnetlink.pack(attributes)))
    assert route_messages.read_route(sent, route.version, route.table) == route
    assert route_messages.read_route(sent, route.version, route.table + 1) is None


def test_a_route_through_a_device_names_its_router():
    route = Route(4, False, 300, LOOPBACK, "192.0.2.1")
    sent = Message(*route_messages.route_message(route, 1))
    assert route_messages.read_route(sent, 4, 300) == route


def test_every_next_hop_of_a_default_route_is_found():
    hops = b""
    for index, router in ((7, "192.0.2.1"), (9, "")):
        gateway = rtnetlink.pack({5: ipaddress.ip_address(router).packed}) if router else b""
        hops += struct.pack("=HBBi", 8 + len(gateway), 0, 0, index) + gateway
    header = struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 3, 0, 1, 0)
    attributes = {15: struct.pack("=I", 254), 6: struct.pack("=I", 50), 9: hops}
    found = route_messages.default_hops(Message(header, attributes), 4, 254)
    assert found == [(50, 7, "192.0.2.1"), (50, 9, "")]


def test_a_router_of_the_other_ip_version_is_found():
    via = struct.pack("=H", 10) + ipaddress.ip_address("fe80::1").packed
    assert route_messages.gateway_of({18: via}) == "fe80::1"


@pytest.mark.parametrize("data", [b"\x01", b"\x00\x00\x01\x00", b"\xff\xff\x01\x00abc"], ids=repr)
def test_attributes_that_are_cut_off_end_the_reading(data):
    assert set(rtnetlink.unpack(data)) <= {1}
