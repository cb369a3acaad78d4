"""Rules as messages to the kernel, and what the kernel may answer."""

from __future__ import annotations

import pytest

from halftunnel_vpn.host.kernel import route_socket, rule_messages
from halftunnel_vpn.host.kernel.routes import Rule

RULES = [
    Rule(4, 5000, "goto", goto=5394, mark=0x485401),
    Rule(6, 5003, "lookup", table=72540, protocol=17, port=53),
    Rule(4, 5005, "lookup", table=254, destination="10.0.0.0/8", suppress=0),
    Rule(6, 5006, "lookup", table=100, source="2000::/3", device="lo", destination="fd00::/8"),
    Rule(4, 5393, "unreachable"),
    Rule(6, 5394, "nop"),
]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_rule_is_read_as_it_was_written(rule):
    body = rule_messages.encode(rule)
    assert rule_messages.decode(body, rule.version) == rule
    assert rule_messages.decode(body, 10 - rule.version) is None


def test_a_rule_of_another_program_is_not_ours():
    body = rule_messages.encode(RULES[0])
    ours, others = b"\x05\x00\x15\x00\x48", b"\x05\x00\x15\x00\x03"  # FRA_PROTOCOL
    assert ours in body
    assert rule_messages.decode(body.replace(ours, others), 4) is None


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_message_that_is_cut_off_raises_nothing_unexpected(rule):
    body = rule_messages.encode(rule)
    for length in range(len(body)):
        found = rule_messages.decode(body[:length], rule.version)
        assert found is None or found.version == rule.version


@pytest.mark.parametrize("data", [b"\x01", b"\x00\x00\x01\x00", b"\xff\xff\x01\x00abc"], ids=repr)
def test_attributes_that_are_cut_off_end_the_reading(data):
    assert set(route_socket.attributes_of(data)) <= {1}
