"""Places on a listener: how many, for whom, and whose word about a peer's address counts."""

from __future__ import annotations

import ipaddress

import pytest

from halftunnel_vpn.transport.admission import (
    BURST,
    BURST_OF_ALL,
    KNOWN_FOR,
    MAX_KNOWN,
    MAX_PEERS,
    Admission,
    ListenLimits,
    Ticket,
    parse_address,
)


def address(text):
    return ipaddress.ip_address(text)


def networks(*texts):
    return [ipaddress.ip_network(text) for text in texts]


def test_places_are_limited_and_come_back():
    admission = Admission(ListenLimits(max_connections=2, max_connections_per_peer=9))
    first, second = admission.admit(address("192.0.2.1"), 0.0), admission.admit(address("192.0.2.2"), 0.0)
    assert isinstance(first, Ticket)
    assert isinstance(second, Ticket)
    assert admission.admit(address("192.0.2.3"), 0.0) == "connection-limit"
    first.give_back()
    first.give_back()
    assert admission.connections == 1
    assert isinstance(admission.admit(address("192.0.2.3"), 0.0), Ticket)


def test_a_peer_is_an_ipv4_address_or_an_ipv6_network():
    admission = Admission(ListenLimits(max_connections_per_peer=1))
    assert isinstance(admission.admit(address("2001:db8::1"), 0.0), Ticket)
    assert admission.admit(address("2001:db8::ffff:1"), 0.0) == "peer-limit"
    assert isinstance(admission.admit(address("2001:db8:0:1::1"), 0.0), Ticket)
    assert isinstance(admission.admit(address("192.0.2.1"), 0.0), Ticket)
    assert isinstance(admission.admit(address("192.0.2.2"), 0.0), Ticket)
    assert admission.admit(address("192.0.2.1"), 0.0) == "peer-limit"


def test_a_peer_that_left_leaves_nothing_behind():
    admission = Admission(ListenLimits(max_connections_per_peer=1, strangers=1000, arrivals=1000))
    for number in range(1000):
        ticket = admission.admit(address("192.0.2.0") + number, 0.0)
        assert isinstance(ticket, Ticket)
        ticket.give_back()
    assert admission.connections == 0
    assert not admission._per_peer


def test_a_connection_of_a_proxy_is_charged_to_whoever_stands_behind_it():
    admission = Admission(ListenLimits(max_connections_per_peer=1), networks("10.0.0.0/8"))
    proxy, client = address("10.1.1.1"), address("192.0.2.1")
    first, second = admission.admit(proxy, 0.0), admission.admit(proxy, 0.0)
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


# --- how fast they come ------------------------------------------------------------------------------


def test_a_peer_that_comes_too_fast_is_refused_until_it_has_waited():
    limits = ListenLimits(arrivals_per_peer=4, max_connections_per_peer=1000)
    admission = Admission(limits)
    peer, other = address("192.0.2.1"), address("192.0.2.2")
    burst = int(4 * BURST)
    assert all(isinstance(admission.admit(peer, 100.0), Ticket) for _ in range(burst))
    assert admission.admit(peer, 100.0) == "peer-rate"
    assert admission.admit(peer, 100.2) == "peer-rate"
    assert isinstance(admission.admit(other, 100.2), Ticket), "nobody else is meant"
    assert isinstance(admission.admit(peer, 100.3), Ticket)
    assert admission.admit(peer, 100.3) == "peer-rate"
    assert admission.connections == burst + 2


def test_a_refusal_does_not_make_a_peer_wait_longer():
    admission = Admission(ListenLimits(arrivals_per_peer=1))
    peer = address("2001:db8::1")
    for _ in range(1000):
        admission.admit(peer, 0.0)
    assert isinstance(admission.admit(address("2001:db8::2"), 1.5), Ticket), "of the same network"
    assert admission.admit(peer, 1.5) == "peer-rate"


def test_a_stranger_that_comes_too_fast_is_refused_sooner():
    admission = Admission(ListenLimits(strangers_per_peer=2, max_connections_per_peer=1000))
    peer = address("192.0.2.1")
    assert all(isinstance(admission.admit(peer, 100.0), Ticket) for _ in range(int(2 * BURST)))
    assert admission.admit(peer, 100.0) == "stranger-rate"
    assert isinstance(admission.admit(address("192.0.2.2"), 100.0), Ticket), "nobody else is meant"
    assert isinstance(admission.admit(peer, 100.5), Ticket)
    assert admission.admit(peer, 100.5) == "stranger-rate"


def test_who_joins_is_no_stranger_and_proves_it_once():
    admission = Admission(ListenLimits(strangers_per_peer=1, strangers=1, max_connections_per_peer=1000))
    peer = address("192.0.2.1")
    for _ in range(100):
        ticket = admission.admit(peer, 100.0)
        assert isinstance(ticket, Ticket)
        ticket.prove(100.0)
        ticket.prove(100.0)
        ticket.give_back()
    assert all(isinstance(admission.admit(peer, 100.0), Ticket) for _ in range(int(BURST)))
    assert admission.admit(peer, 100.0) == "stranger-rate"


def test_who_joins_after_it_was_forgotten_gets_nothing_back():
    admission = Admission(ListenLimits(max_connections=1_000_000))
    ticket = admission.admit(address("192.0.2.1"), 0.0)
    for number in range(MAX_PEERS):
        admission.admit(address("10.0.0.0") + number, 0.0)
    ticket.prove(100.0)
    assert address("192.0.2.1") not in admission._arrivals and len(admission._arrivals) == MAX_PEERS


def storm(admission, addresses, rate, seconds, *, also=None, period=0.3):
    """Strangers come in turns and stay 1 s; returns the answers to ``also``, who comes each ``period``."""
    answers, held, next_try = [], [], period
    for number in range(int(rate * seconds)):
        now = 1000.0 + number / rate
        while held and held[0][0] <= now:
            held.pop(0)[1].give_back()
        ticket = admission.admit(addresses[number % len(addresses)], now)
        if isinstance(ticket, Ticket):
            held.append((now + 1.0, ticket))
        if also is not None and number / rate >= next_try:
            next_try += period
            answers.append(admission.admit(also(), now))
            if isinstance(answers[-1], Ticket):
                answers[-1].prove(now)
                answers[-1].give_back()
    return answers


def test_in_a_storm_of_strangers_a_client_comes_in_each_time():
    addresses = [address("10.0.0.0") + number for number in range(64)]
    for client in (address("192.0.2.1"), address("2001:db8::1")):
        answers = storm(Admission(ListenLimits()), addresses, 2000, 30, also=lambda one=client: one)
        assert len(answers) >= 99
        assert all(isinstance(answer, Ticket) for answer in answers)


def test_in_a_storm_of_strangers_clients_from_addresses_never_seen_come_in():
    strangers = [address("10.0.0.0") + number for number in range(64)]
    clients = iter(address("192.0.2.0") + number for number in range(200))
    answers = storm(Admission(ListenLimits()), strangers, 2000, 30, also=lambda: next(clients))
    assert len(answers) >= 99
    assert all(isinstance(answer, Ticket) for answer in answers)


def test_strangers_that_keep_below_their_own_bounds_lock_out_no_new_client():
    strangers = [address("10.0.0.0") + number for number in range(64)]
    clients = iter(address("192.0.2.0") + number for number in range(200))
    answers = storm(Admission(ListenLimits()), strangers, 64 * 7, 30, also=lambda: next(clients))
    assert all(isinstance(answer, Ticket) for answer in answers)


def test_strangers_of_all_are_bounded():
    admission = Admission(ListenLimits(strangers=10, max_connections=1_000_000))
    many = [address("10.0.0.0") + number for number in range(1000)]
    tickets = [admission.admit(peer, 0.0) for peer in many]
    assert sum(isinstance(ticket, Ticket) for ticket in tickets) == 2 * 10 * BURST_OF_ALL
    assert tickets[-1] == "arrival-rate"


def test_what_a_peer_may_not_do_is_not_charged_to_all():
    admission = Admission(ListenLimits(strangers=80, max_connections_per_peer=1000))
    peer = address("192.0.2.1")
    for _ in range(1000):
        admission.admit(peer, 0.0)
    assert admission._strangers.left == 80 * BURST_OF_ALL - 8 * BURST


def test_a_network_of_ipv6_is_bounded_as_a_whole():
    limits = ListenLimits(max_connections_per_peer=8, strangers_per_peer=100, strangers=1000, arrivals=1000)
    admission = Admission(limits)
    in_one_56 = [address("2001:db8::") + (number << 64) for number in range(256)]
    assert sum(isinstance(admission.admit(peer, 0.0), Ticket) for peer in in_one_56) == 2 * 8
    in_one_48 = [address("2001:db8::") + (number << 72) for number in range(256)]
    admission = Admission(limits)
    assert sum(isinstance(admission.admit(peer, 0.0), Ticket) for peer in in_one_48) == 4 * 8


def test_a_share_of_all_places_is_kept_for_peers_that_joined_lately():
    admission = Admission(ListenLimits(max_connections=16, strangers=1000, arrivals=1000))
    client = admission.admit(address("192.0.2.1"), 0.0)
    assert isinstance(client, Ticket)
    client.prove(0.0)
    client.give_back()
    tickets = [admission.admit(address("10.0.0.0") + number, 1.0) for number in range(100)]
    assert sum(isinstance(ticket, Ticket) for ticket in tickets) == 14
    assert isinstance(admission.admit(address("192.0.2.1"), 1.0), Ticket)
    assert admission.admit(address("192.0.2.1"), KNOWN_FOR) == "connection-limit"


def test_the_memory_of_known_peers_has_a_bound():
    admission = Admission(ListenLimits())
    for number in range(2 * MAX_KNOWN):
        admission.joined(address("10.0.0.0") + number, 0.0)
    assert len(admission._known) == MAX_KNOWN


def test_proxies_of_ours_come_as_fast_as_they_like():
    admission = Admission(ListenLimits(arrivals_per_peer=1), networks("10.0.0.0/8"))
    assert all(isinstance(admission.admit(address("10.0.0.1"), 0.0), Ticket) for _ in range(100))


def test_behind_a_proxy_only_who_may_come_is_charged_to_all():
    admission = Admission(ListenLimits(strangers=80), networks("10.0.0.0/8"))
    stranger, client = address("192.0.2.1"), address("192.0.2.2")
    for _ in range(1000):
        ticket = admission.admit(address("10.0.0.1"), 0.0)
        assert isinstance(ticket, Ticket)
        admission.arrive(stranger, 0.0)
        ticket.give_back()
    assert admission._strangers.left == 80 * BURST_OF_ALL - 8 * BURST
    assert admission.arrive(client, 0.0) is None


def test_the_memory_of_arrivals_has_a_bound():
    admission = Admission(ListenLimits(max_connections=1_000_000))
    for number in range(3 * MAX_PEERS):
        admission.admit(address("10.0.0.0") + number, 0.0)
    assert len(admission._arrivals) == MAX_PEERS
