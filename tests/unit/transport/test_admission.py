"""Places on a listener: how many, for whom, and whose word about a peer's address counts."""

from __future__ import annotations

import ipaddress

import pytest

from halftunnel_vpn.transport.admission import Admission, ListenLimits, Ticket, parse_address


def address(text):
    return ipaddress.ip_address(text)


def networks(*texts):
    return [ipaddress.ip_network(text) for text in texts]


def test_places_are_limited_and_come_back():
    admission = Admission(ListenLimits(max_connections=2, max_connections_per_peer=9))
    first, second = admission.admit(address("192.0.2.1")), admission.admit(address("192.0.2.2"))
    assert isinstance(first, Ticket)
    assert isinstance(second, Ticket)
    assert admission.admit(address("192.0.2.3")) == "connection-limit"
    first.give_back()
    first.give_back()
    assert admission.connections == 1
    assert isinstance(admission.admit(address("192.0.2.3")), Ticket)


def test_a_peer_is_an_ipv4_address_or_an_ipv6_network():
    admission = Admission(ListenLimits(max_connections_per_peer=1))
    assert isinstance(admission.admit(address("2001:db8::1")), Ticket)
    assert admission.admit(address("2001:db8::ffff:1")) == "peer-limit"
    assert isinstance(admission.admit(address("2001:db8:0:1::1")), Ticket)
    assert isinstance(admission.admit(address("192.0.2.1")), Ticket)
    assert isinstance(admission.admit(address("192.0.2.2")), Ticket)
    assert admission.admit(address("192.0.2.1")) == "peer-limit"


def test_a_peer_that_left_leaves_nothing_behind():
    admission = Admission(ListenLimits(max_connections_per_peer=1))
    for number in range(1000):
        ticket = admission.admit(address("192.0.2.0") + number)
        assert isinstance(ticket, Ticket)
        ticket.give_back()
    assert admission.connections == 0
    assert not admission._per_peer


def test_a_connection_of_a_proxy_is_charged_to_whoever_stands_behind_it():
    admission = Admission(ListenLimits(max_connections_per_peer=1), networks("10.0.0.0/8"))
    proxy, client = address("10.1.1.1"), address("192.0.2.1")
    first, second = admission.admit(proxy), admission.admit(proxy)
    assert isinstance(first, Ticket)
    assert isinstance(second, Ticket)
    assert first.charge(client)
    assert first.charge(client)
    assert first.peer == client
    assert not second.charge(client)
    assert second.peer == proxy
    first.give_back()
    assert second.charge(client)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], "10.0.0.1"),
        (["192.0.2.7"], "192.0.2.7"),
        (["203.0.113.1, 192.0.2.7"], "192.0.2.7"),
        (["203.0.113.1", "192.0.2.7"], "192.0.2.7"),
        (["192.0.2.7, 10.9.9.9"], "192.0.2.7"),
        (["192.0.2.7:4711"], "192.0.2.7"),
        (["[2001:db8::7]:4711"], "2001:db8::7"),
        (["::ffff:192.0.2.7"], "192.0.2.7"),
        (["192.0.2.7, unknown"], "10.0.0.1"),
        (["192.0.2.7,"], "10.0.0.1"),
        (["10.2.2.2"], "10.2.2.2"),
        ([", ".join(["192.0.2.7"] + ["10.3.3.3"] * 40)], "10.3.3.3"),
    ],
)
def test_forwarded_addresses_are_read_from_the_right(headers, expected):
    admission = Admission(ListenLimits(), networks("10.0.0.0/8"))
    assert admission.origin(address("10.0.0.1"), headers) == address(expected)


def test_nobody_but_a_trusted_proxy_is_believed():
    admission = Admission(ListenLimits(), networks("10.0.0.0/8"))
    assert admission.origin(address("192.0.2.9"), ["198.51.100.1"]) == address("192.0.2.9")


@pytest.mark.parametrize(
    "text", ["", "unknown", "_hidden", "1.2.3", "[", "[::1", ":::", "a:b:c", "1.2.3.4.5:6"]
)
def test_texts_that_are_no_address(text):
    assert parse_address(text) in (None, address("::1"))


def test_a_zone_is_left_out():
    assert parse_address("fe80::1%eth0") == address("fe80::1")
