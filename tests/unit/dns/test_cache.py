"""Answers remembered; time is what the test says it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from dnslib import DNSRecord

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.dns.answer import Answer, parse_answer
from halftunnel_vpn.dns.cache import (
    ENTRY_OVERHEAD,
    REFRESH_INTERVAL,
    STALE_TTL,
    CacheLimits,
    DnsCache,
)
from halftunnel_vpn.dns.message import parse_query

Ask = Callable[..., bytes]
Respond = Callable[..., bytes]
Make = Callable[..., tuple[bytes, Answer]]


@pytest.fixture
def make(ask: Ask, respond: Respond) -> Make:
    """``make("a.example", "a.example. 60 A 192.0.2.1")`` -> the key and the answer."""

    def make(name: str, zone: str = "", **more: str) -> tuple[bytes, Answer]:
        query = parse_query(ask(name))
        return query.key, parse_answer(respond(ask(name), zone, **more), query)

    return make


def cache_of(**limits: Any) -> DnsCache:
    return DnsCache(CacheLimits(**limits), Counters())


def ttls(answer: Answer) -> list[int]:
    return [record.ttl for record in (*DNSRecord.parse(answer.wire).rr, *DNSRecord.parse(answer.wire).auth)]


def test_an_answer_is_remembered_until_its_ttl_is_over(make: Make) -> None:
    counters = Counters()
    cache = DnsCache(CacheLimits(), counters)
    key, answer = make("a.example", "a.example. 60 A 192.0.2.1")
    cache.put(key, answer, 1000.0)
    assert cache.get(key, 1000.0) == (answer, 0, False)
    assert cache.get(key, 1059.9) == (answer, 59, False)
    assert cache.get(key, 1060.0) is None
    assert (len(cache), cache.bytes) == (0, 0)
    assert counters.counted == {"dns-cache-hits": 2, "dns-cache-expired": 1, "dns-cache-misses": 1}


def test_the_shortest_ttl_decides(make: Make) -> None:
    cache = cache_of()
    key, answer = make("a.example", "a.example. 300 CNAME b.example.\nb.example. 5 A 192.0.2.1")
    cache.put(key, answer, 0.0)
    assert cache.get(key, 4.9) is not None
    assert cache.get(key, 5.0) is None


def test_ttls_are_moved_to_within_the_bounds(make: Make) -> None:
    cache = cache_of(ttl_floor=30, ttl_ceiling=100)
    key, answer = make("a.example", "a.example. 9000 CNAME b.example.\nb.example. 0 A 192.0.2.1")
    cache.put(key, answer, 0.0)
    assert ttls(answer) == [100, 30]
    assert cache.get(key, 29.0) is not None
    assert cache.get(key, 30.0) is None


def test_an_answer_without_a_lifetime_is_not_remembered(make: Make) -> None:
    cache = cache_of()
    for key, answer in [
        make("a.example", "a.example. 0 A 192.0.2.1"),
        make("b.example", rcode="NXDOMAIN"),
        make("c.example", rcode="REFUSED"),
        make("d.example", "d.example. 60 A 192.0.2.1", tc=1),
    ]:
        cache.put(key, answer, 0.0)
        assert cache.get(key, 0.0) is None


def test_a_denial_is_remembered_as_long_as_its_soa_record_says(make: Make) -> None:
    soa = "example. 900 SOA ns.example. admin.example. 1 7200 900 86400 {}"
    cache = cache_of(negative_ceiling=300)
    for name, minimum, lifetime in [("a.example", 20, 20), ("b.example", 86400, 300)]:
        key, answer = make(name, rcode="NXDOMAIN", authority=soa.format(minimum))
        cache.put(key, answer, 0.0)
        assert ttls(answer) == [lifetime], "the client must not remember it for longer"
        assert cache.get(key, lifetime - 0.1) is not None
        assert cache.get(key, lifetime) is None


def test_a_failure_is_remembered_for_a_second(make: Make) -> None:
    cache = cache_of(ttl_floor=60)
    key, answer = make("a.example", rcode="SERVFAIL")
    cache.put(key, answer, 0.0)
    assert cache.get(key, 0.9) is not None
    assert cache.get(key, 1.0) is None


def test_the_entry_unused_for_longest_gives_way(make: Make) -> None:
    counters = Counters()
    cache = DnsCache(CacheLimits(max_entries=3), counters)
    made = [make(f"{i}.example", f"{i}.example. 60 A 192.0.2.1") for i in range(4)]
    for key, answer in made[:3]:
        cache.put(key, answer, 0.0)
    assert cache.get(made[0][0], 1.0) is not None
    cache.put(*made[3], 1.0)
    assert [cache.get(key, 1.0) is not None for key, _ in made] == [True, False, True, True]
    assert counters.counted["dns-cache-evicted"] == 1


def test_bytes_are_bounded(make: Make) -> None:
    texts = "\n".join(f'{{0}}.example. 60 TXT "{i:0250}"' for i in range(10))
    cache = cache_of(max_bytes=10_000)
    for i in range(20):
        cache.put(*make(f"{i}.example", texts.format(i) + f"\n{i}.example. 60 A 192.0.2.1"), 0.0)
        assert cache.bytes <= 10_000
    assert len(cache) == 2
    cache.clear()
    assert (len(cache), cache.bytes) == (0, 0)


def test_what_is_larger_than_the_cache_is_not_taken(make: Make) -> None:
    cache = cache_of(max_bytes=ENTRY_OVERHEAD)
    cache.put(*make("a.example", "a.example. 60 A 192.0.2.1"), 0.0)
    assert len(cache) == 0
    none = cache_of(max_entries=0)
    none.put(*make("a.example", "a.example. 60 A 192.0.2.1"), 0.0)
    assert len(none) == 0


def test_a_newer_answer_replaces_an_older_one(make: Make) -> None:
    cache = cache_of()
    key, old = make("a.example", "a.example. 60 A 192.0.2.1")
    _, new = make("a.example", "a.example. 60 A 192.0.2.2")
    cache.put(key, old, 0.0)
    size = cache.bytes
    cache.put(key, new, 30.0)
    assert cache.get(key, 70.0) == (new, 40, False)
    assert (len(cache), cache.bytes) == (1, size)


# --- prefetch and stale answers ---------------------------------------------------------------------


def test_a_refresh_is_due_in_the_last_tenth_once_and_again_later(make: Make) -> None:
    cache = cache_of(prefetch=True)
    key, answer = make("a.example", "a.example. 600 A 192.0.2.1")
    cache.put(key, answer, 0.0)
    due = [second for second in range(600) if cache.get(key, float(second)).is_due]
    assert due == [540, 540 + REFRESH_INTERVAL]
    assert cache.get(key, 600.0) is None, "stale answers were not asked for"


def test_what_lives_for_seconds_or_denies_a_name_is_not_fetched_early(make: Make) -> None:
    soa = "example. 900 SOA ns.example. admin.example. 1 7200 900 86400 60"
    for made in (
        make("a.example", "a.example. 9 A 192.0.2.1"),
        make("b.example", rcode="NXDOMAIN", authority=soa),
    ):
        cache = cache_of(prefetch=True, max_stale=3600)
        cache.put(*made, 0.0)
        assert not cache.get(made[0], 8.9).is_due


def test_an_answer_is_served_stale_within_the_bound_and_with_a_short_ttl(make: Make) -> None:
    cache = cache_of(max_stale=100)
    key, answer = make("a.example", "a.example. 60 CNAME b.example.\nb.example. 600 A 192.0.2.1")
    cache.put(key, answer, 0.0)
    assert cache.get(key, 59.0) == (answer, 59, False)
    hit = cache.get(key, 60.0)
    assert hit == (answer, 0, True) and ttls(hit.answer) == [STALE_TTL, STALE_TTL]
    assert not cache.get(key, 60.0 + REFRESH_INTERVAL - 1).is_due, "the resolver is not asked at every query"
    assert cache.get(key, 60.0 + REFRESH_INTERVAL).is_due
    assert cache.get(key, 159.9) is not None
    assert cache.get(key, 160.0) is None


def test_a_denial_is_never_served_stale_and_a_failure_replaces_nothing(make: Make) -> None:
    cache = cache_of(max_stale=100)
    soa = "example. 900 SOA ns.example. admin.example. 1 7200 900 86400 20"
    denied, denial = make("b.example", rcode="NXDOMAIN", authority=soa)
    cache.put(denied, denial, 0.0)
    assert cache.get(denied, 20.0) is None
    key, answer = make("a.example", "a.example. 60 A 192.0.2.1")
    _, failure = make("a.example", rcode="SERVFAIL")
    _, gone = make("a.example", rcode="NXDOMAIN", authority=soa)
    cache.put(key, answer, 0.0)
    cache.put(key, failure, 70.0)
    assert cache.get(key, 71.0).answer is answer
    cache.put(key, gone, 72.0)
    assert cache.get(key, 73.0).answer is gone, "a denial is an answer"


@pytest.mark.parametrize(
    ("zone", "more"),
    [
        ("a.example. 0 A 192.0.2.2", {}),
        ("", {"rcode": "NXDOMAIN"}),
        ("", {}),
    ],
    ids=["its TTL is 0", "a denial without SOA", "no data without SOA"],
)
def test_an_answer_that_may_not_be_remembered_ends_the_stale_one(make: Make, zone: str, more: Any) -> None:
    cache = cache_of(max_stale=100)
    key, answer = make("a.example", "a.example. 60 A 192.0.2.1")
    cache.put(key, answer, 0.0)
    assert cache.get(key, 70.0).answer is answer
    cache.put(key, make("a.example", zone, **more)[1], 71.0)
    assert cache.get(key, 72.0) is None, "the name has moved, or is gone"
    assert (len(cache), cache.bytes) == (0, 0)


@pytest.mark.parametrize("rcode", ["REFUSED", "FORMERR", "SERVFAIL"])
def test_what_says_nothing_of_the_name_leaves_the_stale_answer(make: Make, rcode: str) -> None:
    cache = cache_of(max_stale=100)
    key, answer = make("a.example", "a.example. 60 A 192.0.2.1")
    cache.put(key, answer, 0.0)
    cache.put(key, make("a.example", rcode=rcode)[1], 71.0)
    assert cache.get(key, 72.0).answer is answer
