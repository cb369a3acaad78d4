"""Queries of clients, and the answers that are made here; dnslib reads what we write."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from dnslib import QTYPE, RCODE, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from halftunnel_vpn.dns.message import (
    LocalRecord,
    address_query,
    local_answer,
    minimal_any,
    negative_authority,
    parse_query,
    ptr_record,
    refuse,
)
from halftunnel_vpn.dns.message_reader import Rcode, RecordType
from halftunnel_vpn.errors import DnsError

Ask = Callable[..., bytes]
ANY_QUERY = b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01\x03www\x07example\x03org\x00\x00\x01\x00\x01"
ANY_QUERY += b"\x00\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x04\x00\x0a\x00\x00"


def test_a_query_is_read(ask: Ask) -> None:
    query = parse_query(ask("WWW.Example.org", "AAAA", identifier=4711))
    assert (query.identifier, query.name, query.type, query.class_) == (4711, "www.example.org", 28, 1)
    assert (query.edns, query.dnssec_ok, query.udp_limit) == (False, False, 512)
    assert query.question == b"\x03WWW\x07Example\x03org\x00\x00\x1c\x00\x01"


@pytest.mark.parametrize(
    ("offered", "granted"), [(0, 512), (512, 512), (1000, 1000), (1232, 1232), (65535, 1232)]
)
def test_the_offered_udp_size_counts_within_bounds(ask: Ask, offered: int, granted: int) -> None:
    assert parse_query(ask("a.example", edns=offered)).udp_limit == granted


def test_the_key_ignores_case_id_and_size_but_not_what_changes_the_answer(ask: Ask) -> None:
    key = parse_query(ask("a.example")).key
    assert parse_query(ask("A.eXample", identifier=9, edns=1232)).key == key
    others = [
        ask("b.example"),
        ask("a.example", "AAAA"),
        ask("a.example", class_=3),
        ask("a.example", edns=1232, dnssec_ok=True),
        ask("a.example", cd=1),
    ]
    assert len({key, *(parse_query(other).key for other in others)}) == 6


def test_the_type_in_the_key_is_not_taken_for_letters(ask: Ask) -> None:
    # 65 (HTTPS) is "A", 97 is "a".
    https = parse_query(ask("a.example", "HTTPS"))
    other = parse_query(ask("a.example", "HTTPS").replace(b"\x00\x41", b"\x00\x61"))
    assert https.type == 65 and other.type == 97
    assert https.key != other.key


def test_what_is_forwarded_holds_nothing_of_the_client_but_the_question(ask: Ask) -> None:
    cookie = ANY_QUERY
    forwarded = DNSRecord.parse(parse_query(cookie.replace(b"www", b"WwW")).question_to_forward(99))
    assert (forwarded.header.id, forwarded.header.rd, str(forwarded.q.qname)) == (99, 1, "www.example.org.")
    assert [(opt.rtype, opt.edns_len, opt.edns_do, opt.rdata) for opt in forwarded.ar] == [(41, 1232, 1, [])]
    plain = DNSRecord.parse(parse_query(ask("a.example", cd=1)).question_to_forward(1))
    assert (plain.header.cd, plain.ar[0].edns_do) == (1, 0)


@pytest.mark.parametrize(
    ("message", "reason", "rcode"),
    [
        pytest.param(b"", "dns-too-short", None, id="nothing"),
        pytest.param(ANY_QUERY[:11], "dns-too-short", None, id="half a header"),
        pytest.param(b"\0\7\x81\0" + ANY_QUERY[4:], "dns-not-a-query", None, id="a response"),
        pytest.param(b"\0\7\x28\0" + ANY_QUERY[4:], "dns-bad-opcode", 4, id="an update"),
        pytest.param(ANY_QUERY[:12], "dns-bad-name", 1, id="a header alone"),
        pytest.param(ANY_QUERY[:5] + b"\0" + ANY_QUERY[6:], "dns-bad-question", 1, id="no question"),
        pytest.param(ANY_QUERY[:5] + b"\2" + ANY_QUERY[6:], "dns-bad-question", 1, id="two questions"),
        pytest.param(ANY_QUERY[:20], "dns-bad-name", 1, id="a name cut short"),
        pytest.param(ANY_QUERY[:31], "dns-bad-name", 1, id="a type cut short"),
        pytest.param(
            ANY_QUERY[:12] + b"\xc0\x0c" + ANY_QUERY[14:],
            "dns-bad-name",
            1,
            id="a name that points to itself",
        ),
        pytest.param(ANY_QUERY[:-1], "dns-bad-record", 1, id="an OPT record cut short"),
        pytest.param(
            ANY_QUERY[:7] + b"\xff\0\0\0\0" + ANY_QUERY[12:33],
            "dns-bad-name",
            1,
            id="255 answers that are not there",
        ),
        pytest.param(
            ANY_QUERY[:11] + b"\2" + ANY_QUERY[12:] + ANY_QUERY[33:], "dns-bad-edns", 1, id="two OPT records"
        ),
        pytest.param(
            ANY_QUERY[:7] + b"\1\0\0\0\0" + ANY_QUERY[12:], "dns-bad-edns", 1, id="an OPT record as answer"
        ),
    ],
)
def test_a_malformed_query_is_named_and_answered(message: bytes, reason: str, rcode: int | None) -> None:
    with pytest.raises(DnsError) as caught:
        parse_query(message)
    assert caught.value.reason == reason
    refusal = refuse(message, caught.value)
    if rcode is None:
        assert refusal is None
    else:
        answer = DNSRecord.parse(refusal)
        assert (answer.header.id, answer.header.qr, answer.header.rcode) == (7, 1, rcode)


def test_an_unknown_edns_version_is_answered_with_the_known_one() -> None:
    message = bytearray(ANY_QUERY)
    message[39] = 1
    with pytest.raises(DnsError) as caught:
        parse_query(bytes(message))
    answer = DNSRecord.parse(refuse(bytes(message), caught.value))
    (opt,) = answer.ar
    assert (answer.header.rcode, opt.edns_rcode, opt.edns_ver) == (0, 1, 0), "1 << 4 | 0 is BADVERS"


def test_records_about_the_name_are_answered(ask: Ask) -> None:
    query = parse_query(ask("A.Example", identifier=5, edns=1232, dnssec_ok=True, cd=1))
    addresses = [LocalRecord(RecordType.A, 60, bytes((192, 0, 2, i))) for i in (1, 2)]
    answer = DNSRecord.parse(local_answer(query, answers=addresses, stream=False))
    header = answer.header
    assert (header.id, header.qr, header.aa, header.rd, header.ra, header.cd) == (5, 1, 0, 1, 1, 1)
    assert [(str(rr.rname), str(rr.rdata), rr.ttl) for rr in answer.rr] == [
        ("A.Example.", "192.0.2.1", 60),
        ("A.Example.", "192.0.2.2", 60),
    ]
    assert (answer.ar[0].edns_len, answer.ar[0].edns_do) == (1232, 1)


def test_no_opt_record_goes_to_who_sent_none(ask: Ask) -> None:
    answer = DNSRecord.parse(local_answer(parse_query(ask("a.example", rd=0)), stream=False))
    assert (answer.ar, answer.rr, answer.header.rd, answer.header.rcode) == ([], [], 0, 0)


@pytest.mark.parametrize("rcode", [Rcode.NXDOMAIN, Rcode.SERVFAIL, Rcode.REFUSED])
def test_a_failure_is_answered_with_its_code(ask: Ask, rcode: Rcode) -> None:
    answer = DNSRecord.parse(local_answer(parse_query(ask("a.example")), rcode, stream=True))
    assert RCODE[answer.header.rcode] == rcode.name


def test_a_denial_says_for_how_long(ask: Ask) -> None:
    query = parse_query(ask("a.example"))
    answer = local_answer(query, Rcode.NXDOMAIN, authorities=[negative_authority(60)], stream=False)
    (soa,) = DNSRecord.parse(answer).auth
    assert (soa.rtype, soa.ttl, soa.rdata.times[4]) == (QTYPE.SOA, 60, 60)


def test_any_is_answered_with_the_minimum(ask: Ask) -> None:
    answer = local_answer(parse_query(ask("a.example", "ANY")), answers=[minimal_any(60)], stream=False)
    (record,) = DNSRecord.parse(answer).rr
    assert (record.rtype, record.rdata.data) == (RecordType.HINFO, b"\x07RFC8482\x00")


def test_a_pointer_record_holds_the_name(ask: Ask) -> None:
    answer = local_answer(
        parse_query(ask("1.0.18.198.in-addr.arpa", "PTR")),
        answers=[ptr_record("www.example.org", 10)],
        stream=False,
    )
    assert str(DNSRecord.parse(answer).a.rdata) == "www.example.org."


@pytest.mark.parametrize(
    ("edns", "stream", "cut"), [(None, False, True), (None, True, False), (1232, False, False)]
)
def test_an_answer_too_long_for_udp_asks_for_tcp(ask: Ask, edns: int | None, stream: bool, cut: bool) -> None:
    query = parse_query(ask("A.example", edns=edns))
    addresses = [LocalRecord(RecordType.A, 60, struct.pack("!I", i)) for i in range(40)]
    answer = DNSRecord.parse(local_answer(query, answers=addresses, stream=stream))
    assert bool(answer.header.tc) is cut
    assert len(answer.rr) == (0 if cut else 40)
    assert str(answer.q.qname) == "A.example."


def test_a_name_becomes_a_query_in_ascii() -> None:
    query = DNSRecord.parse(address_query("bücher.example", RecordType.AAAA))
    assert (str(query.q.qname), query.q.qtype, query.header.rd) == ("xn--bcher-kva.example.", QTYPE.AAAA, 1)


@pytest.mark.parametrize("name", ["a..b", "a" * 64 + ".example", "a." * 200, "\ud800.example", "x" * 10_000])
def test_what_is_no_name_is_an_error(name: str) -> None:
    with pytest.raises(DnsError, match="dns-bad-name"):
        address_query(name, RecordType.A)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_query_or_get_a_refusal(message: bytes) -> None:
    check(message)


@given(
    st.lists(st.tuples(st.integers(0, len(ANY_QUERY) - 1), st.integers(0, 255)), max_size=6),
    st.integers(0, 48),
)
def test_a_damaged_query_is_a_query_or_gets_a_refusal(damage: list[tuple[int, int]], keep: int) -> None:
    message = bytearray(ANY_QUERY)
    for offset, value in damage:
        message[offset] = value
    check(bytes(message[:keep]))
    check(bytes(message))


def check(message: bytes) -> None:
    try:
        query = parse_query(message)
    except DnsError as error:
        refusal = refuse(message, error)
        if refusal is not None:
            assert DNSRecord.parse(refusal).header.id == int.from_bytes(message[:2], "big")
        return
    assert query.name == query.name.lower()
    assert len(query.question) <= 259
    assert local_answer(query, Rcode.SERVFAIL, stream=False)[:2] == message[:2]
