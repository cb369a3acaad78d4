"""Addresses that stand for names."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halftunnel_vpn.dns.fakeip import FakePool, reverse_address


def test_a_name_gets_an_address_that_leads_back_to_it() -> None:
    pool = FakePool("198.18.0.0/15", max_entries=100, hold=60.0)
    address = pool.lease("www.example.org", 0.0)
    assert address == ipaddress.ip_address("198.18.0.1").packed
    assert pool.lease("www.example.org", 1.0) == address
    assert pool.name_of(address, 1.0) == "www.example.org"
    assert pool.address_of("www.example.org", 1.0) == address
    assert pool.lease("other.example", 1.0) == ipaddress.ip_address("198.18.0.2").packed
    assert len(pool) == 2


def test_what_was_never_given_out_means_nothing() -> None:
    pool = FakePool("198.18.0.0/15", max_entries=100, hold=60.0)
    stranger = ipaddress.ip_address("198.19.1.1").packed
    assert (pool.name_of(stranger, 0.0), pool.address_of("a.example", 0.0)) == (None, None)
    assert stranger in pool
    assert ipaddress.ip_address("192.0.2.1").packed not in pool
    assert bytes(16) not in pool


def test_ipv6_has_its_own_network() -> None:
    pool = FakePool("fd48:5456:f00d::/96", max_entries=100, hold=60.0, first=2**40)
    address = pool.lease("www.example.org", 0.0)
    assert address is not None and len(address) == 16
    assert ipaddress.ip_address(address) in ipaddress.ip_network("fd48:5456:f00d::/96")
    assert pool.version == 6


def test_runs_begin_at_different_places() -> None:
    first = FakePool("198.18.0.0/15", max_entries=100, hold=60.0, first=0).lease("a.example", 0.0)
    later = FakePool("198.18.0.0/15", max_entries=100, hold=60.0, first=70_000).lease("a.example", 0.0)
    assert first != later


def test_the_lease_unused_for_longest_goes_when_it_is_no_longer_held() -> None:
    pool = FakePool("198.18.0.0/24", max_entries=2, hold=60.0)
    a = pool.lease("a.example", 0.0)
    b = pool.lease("b.example", 10.0)
    assert a is not None and b is not None
    assert (pool.name_of(a, 0.0), pool.name_of(b, 10.0)) == ("a.example", "b.example")
    assert pool.lease("c.example", 59.0) is None, "a is held until 60"
    assert pool.name_of(a, 59.0) == "a.example", "a flow to a holds it until 119"
    assert pool.lease("c.example", 69.0) is None, "b is held until 70"
    c = pool.lease("c.example", 70.0)
    assert c not in (a, b, None), "addresses rest before they are used again"
    assert pool.name_of(b, 70.0) is None
    assert pool.address_of("b.example", 70.0) is None
    assert pool.name_of(a, 70.0) == "a.example"


def test_names_that_nobody_connects_to_give_way_soon() -> None:
    """A web page can have a browser ask for any number of names."""
    pool = FakePool("198.18.0.0/24", max_entries=50, hold=600.0, hold_unused=30.0)
    visited = pool.lease("visited.example", 0.0)
    assert visited is not None
    assert pool.name_of(visited, 0.0) == "visited.example"
    for i in range(200):
        pool.lease(f"made-up-{i}.example", 1.0)
    assert pool.lease("new.example", 30.9) is None
    assert pool.lease("new.example", 31.0) is not None
    assert pool.name_of(visited, 599.0) == "visited.example"
    assert len(pool) == 50


def test_who_only_looks_an_address_up_holds_nothing() -> None:
    pool = FakePool("198.18.0.0/24", max_entries=1, hold=60.0, hold_unused=30.0)
    address = pool.lease("a.example", 0.0)
    assert address is not None
    assert pool.look_up(address) == "a.example"
    assert pool.lease("b.example", 30.0) is not None
    assert pool.look_up(address) is None


def test_addresses_come_round_again_when_the_network_is_used_up() -> None:
    pool = FakePool("198.18.0.0/29", max_entries=1000, hold=0.0)
    kept = pool.lease("kept.example", 0.0)
    seen = set()
    for i in range(30):
        assert pool.address_of("kept.example", float(i)) == kept
        seen.add(pool.lease(f"{i}.example", float(i)))
    assert len(pool) == 3, "half of the six addresses"
    assert len(seen) == 5, "all but the one that is kept"


@pytest.mark.parametrize("network", ["198.18.0.0/30", "fd00::/126"])
def test_the_smallest_network_serves_one_name(network: str) -> None:
    pool = FakePool(network, max_entries=1000, hold=1.0)
    assert pool.lease("a.example", 0.0) is not None
    assert pool.lease("b.example", 0.5) is None
    assert pool.lease("b.example", 1.0) is not None


STEPS = st.lists(
    st.tuples(st.sampled_from(["lease", "look up"]), st.integers(0, 12), st.floats(0, 5)), max_size=60
)


@given(STEPS, st.integers(1, 8))
def test_names_and_addresses_stay_one_to_one_and_held_leases_stay(
    steps: list[tuple[str, int, float]], max_entries: int
) -> None:
    hold = 10.0
    pool = FakePool("198.18.0.0/28", max_entries=max_entries, hold=hold)
    now = 0.0
    held: dict[str, tuple[bytes, float]] = {}
    for step, number, pause in steps:
        now += pause
        held = {name: (address, until) for name, (address, until) in held.items() if now < until}
        name = f"{number}.example"
        address = pool.lease(name, now) if step == "lease" else pool.address_of(name, now)
        if name in held:
            assert address == held[name][0], "a held lease stays"
        if address is None:
            assert step != "lease" or len(held) == min(max_entries, 7)
            continue
        assert pool.name_of(address, now) == name
        assert address not in [at for other, (at, _) in held.items() if other != name]
        held[name] = (address, now + hold)
        assert len(pool) <= max_entries
    for name, (address, until) in held.items():
        if now < until:
            assert pool.name_of(address, now) == name


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("1.0.18.198.in-addr.arpa", "198.18.0.1"),
        ("1." + "0." * 19 + "d.0.0.f.6.5.4.5.8.4.d.f.ip6.arpa", "fd48:5456:f00d::1"),
        ("0.18.198.in-addr.arpa", None),
        ("1.2.3.4.5.in-addr.arpa", None),
        ("256.0.18.198.in-addr.arpa", None),
        ("x.0.18.198.in-addr.arpa", None),
        ("in-addr.arpa", None),
        ("d.f.ip6.arpa", None),
        ("10." + "0." * 30 + "d.ip6.arpa", None),
        ("g." + "0." * 30 + "d.ip6.arpa", None),
        ("www.example.org", None),
    ],
)
def test_the_address_of_a_reverse_name(name: str, address: str | None) -> None:
    assert reverse_address(name) == (ipaddress.ip_address(address).packed if address else None)
