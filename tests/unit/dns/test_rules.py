"""Names that have rules of their own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from dnslib import RCODE, DNSRecord

from halftunnel_vpn.dns.dns_config import DnsServiceConfig
from halftunnel_vpn.dns.message import parse_query
from halftunnel_vpn.dns.rules import Rules, SuffixTable

Ask = Callable[..., bytes]
Decide = Callable[..., tuple[str, list[str]] | None]

RULES = DnsServiceConfig(
    hosts={
        "NAS.home": ["192.0.2.9", "192.0.2.10", "2001:db8::9"],
        "v4": ["192.0.2.4"],
        "blocked.example": ["192.0.2.1"],
    },
    block=["ads.example", "blocked.example", "secret.corp.example"],
    split={
        "corp.example": [("192.0.2.53", 53)],
        "lab.corp.example": [("192.0.2.54", 5353), ("192.0.2.55", 53)],
    },
    fake_exclude=["time.example"],
)


@pytest.fixture
def decide(ask: Ask) -> Decide:
    """``decide("nas.home", "A")`` -> the response code and the data of the answer, or None."""

    def decide(
        name: str, type_: str = "A", rules: Rules | None = None, **more: int
    ) -> tuple[str, list[str]] | None:
        answer = (rules or Rules(RULES)).answer(parse_query(ask(name, type_, **more)), stream=False)
        if answer is None:
            return None
        record = DNSRecord.parse(answer)
        if not record.rr and record.header.rcode in (0, 3):
            assert record.auth[0].ttl == 60, "clients remember that there is nothing"
        return RCODE[record.header.rcode], [str(rr.rdata) for rr in record.rr]

    return decide


def test_hosts_are_answered(decide: Decide) -> None:
    assert decide("nas.HOME") == ("NOERROR", ["192.0.2.9", "192.0.2.10"])
    assert decide("nas.home", "AAAA") == ("NOERROR", ["2001:db8::9"])
    assert decide("v4", "AAAA") == ("NOERROR", [])
    assert decide("nas.home", "MX") == ("NOERROR", [])
    assert decide("www.nas.home") is None, "hosts stand for themselves alone"


def test_blocked_domains_do_not_exist(decide: Decide) -> None:
    assert decide("ads.example") == ("NXDOMAIN", [])
    assert decide("x.y.ADS.example", "TXT") == ("NXDOMAIN", [])
    assert decide("bads.example") is None, "a suffix ends at a dot"
    assert decide("example") is None


def test_blocked_domains_may_lead_nowhere_instead(decide: Decide) -> None:
    zero = Rules(DnsServiceConfig(block=["ads.example"], block_answer="zero"))
    assert decide("a.ads.example", rules=zero) == ("NOERROR", ["0.0.0.0"])
    assert decide("a.ads.example", "AAAA", rules=zero) == ("NOERROR", ["::"])
    assert decide("a.ads.example", "TXT", rules=zero) == ("NOERROR", [])
    assert decide("use-application-dns.net", rules=zero) == ("NXDOMAIN", [])


def test_hosts_go_before_the_block_list_and_that_before_split_domains(decide: Decide) -> None:
    assert decide("blocked.example") == ("NOERROR", ["192.0.2.1"])
    assert decide("a.secret.corp.example") == ("NXDOMAIN", [])


def test_the_longest_split_domain_names_the_resolvers() -> None:
    rules = Rules(RULES)
    assert rules.resolvers("www.corp.example") == (("192.0.2.53", 53),)
    assert rules.resolvers("x.lab.corp.example") == (("192.0.2.54", 5353), ("192.0.2.55", 53))
    assert rules.resolvers("notcorp.example") is None


@pytest.mark.parametrize(
    ("name", "type_", "answer"),
    [
        ("use-application-dns.net", "A", ("NXDOMAIN", [])),
        ("x.onion", "A", ("NXDOMAIN", [])),
        ("test.invalid", "A", ("NXDOMAIN", [])),
        ("_dns.resolver.arpa", "SVCB", ("NOERROR", [])),
        ("localhost", "A", ("NOERROR", ["127.0.0.1"])),
        ("x.localhost", "AAAA", ("NOERROR", ["::1"])),
        ("www.example.org", "AXFR", ("REFUSED", [])),
        ("1.1.168.192.in-addr.arpa", "PTR", None),
        ("www.example.org", "A", None),
        ("", "NS", None),
    ],
)
def test_names_and_types_that_are_special_to_everyone(
    decide: Decide, name: str, type_: str, answer: tuple[str, list[str]] | None
) -> None:
    assert decide(name, type_) == answer


def test_any_is_answered_with_the_minimum_and_other_classes_are_refused(decide: Decide) -> None:
    any_answer = decide("www.corp.example", "ANY")
    assert any_answer is not None and len(any_answer[1]) == 1
    assert decide("version.bind", "TXT", class_=3) == ("REFUSED", [])


def test_without_ipv6_there_are_no_ipv6_addresses_but_local_ones(decide: Decide) -> None:
    rules = Rules(DnsServiceConfig(ipv6=False, hosts=RULES.hosts, split=RULES.split))
    assert decide("www.example.org", "AAAA", rules=rules) == ("NOERROR", [])
    assert decide("www.example.org", "A", rules=rules) is None
    assert decide("nas.home", "AAAA", rules=rules) == ("NOERROR", ["2001:db8::9"])
    assert decide("www.corp.example", "AAAA", rules=rules) is None


def test_only_hosts_names_outside_the_excluded_domains_get_fake_addresses() -> None:
    rules = Rules(RULES)
    assert rules.may_be_fake("www.example.org")
    assert not rules.may_be_fake("a.time.example")
    assert not rules.may_be_fake("")
    assert not rules.may_be_fake("a\\046b.example")


def test_the_root_as_suffix_is_everything() -> None:
    assert SuffixTable({".": 1, "example": 2}).find("www.example.org") == 1
    assert SuffixTable({".": 1, "example": 2}).find("www.example") == 2
    assert SuffixTable[int]({}).find("www.example") is None
