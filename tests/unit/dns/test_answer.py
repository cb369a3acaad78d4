"""What resolvers answer, and how it reaches a client."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from dnslib import CNAME, EDNS0, QTYPE, RR, A, DNSHeader, DNSQuestion, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from halftunnel_vpn.dns.answer import MAX_RECORDS, addresses_in, parse_answer, same_question
from halftunnel_vpn.dns.message import parse_query
from halftunnel_vpn.dns.message_reader import RecordType
from halftunnel_vpn.errors import DnsError

Ask = Callable[..., bytes]
Respond = Callable[..., bytes]

CHAIN = """
www.example.org. 300 CNAME edge.example.net.
edge.example.net. 60 CNAME pop.example.com.
pop.example.com. 120 A 192.0.2.1
pop.example.com. 120 A 192.0.2.2
"""
SOA = "example.org. 600 SOA ns.example.org. admin.example.org. 1 7200 900 86400 {minimum}"


def test_an_answer_comes_back_with_the_id_and_the_spelling_of_the_query(ask: Ask, respond: Respond) -> None:
    asked = parse_query(ask("www.example.org", identifier=1))
    answer = parse_answer(respond(ask("www.example.org", identifier=1), CHAIN), asked)
    other = parse_query(ask("WwW.eXample.ORG", identifier=4711))
    reply = DNSRecord.parse(answer.render(other, 0, stream=False))
    assert reply.header.id == 4711
    assert str(reply.q.qname) == "WwW.eXample.ORG."
    assert str(reply.rr[0].rname) == "WwW.eXample.ORG.", "compressed names follow the question's spelling"
    assert [str(rr.rdata) for rr in reply.rr] == [
        "edge.example.net.",
        "pop.example.com.",
        "192.0.2.1",
        "192.0.2.2",
    ]


def test_ttls_shrink_with_age_and_never_below_zero(ask: Ask, respond: Respond) -> None:
    query = parse_query(ask("www.example.org"))
    answer = parse_answer(respond(ask("www.example.org"), CHAIN), query)
    assert answer.lifetime == 60
    assert [rr.ttl for rr in DNSRecord.parse(answer.render(query, 59, stream=False)).rr] == [241, 1, 61, 61]
    assert [rr.ttl for rr in DNSRecord.parse(answer.render(query, 100, stream=False)).rr] == [200, 0, 20, 20]
    assert [rr.ttl for rr in DNSRecord.parse(answer.render(query, 0, stream=False)).rr] == [300, 60, 120, 120]


def test_the_resolvers_opt_record_stays_behind_and_ours_goes_to_who_speaks_edns(
    ask: Ask, respond: Respond
) -> None:
    edns = ask("www.example.org", edns=1232)
    answer = parse_answer(
        respond(edns, CHAIN, additional="ns.example.org. 60 A 192.0.2.9"), parse_query(edns)
    )
    with_edns = DNSRecord.parse(answer.render(parse_query(edns), 0, stream=False))
    assert [(rr.rtype, rr.rclass) for rr in with_edns.ar] == [(QTYPE.A, 1), (QTYPE.OPT, 1232)]
    without = DNSRecord.parse(answer.render(parse_query(ask("www.example.org")), 0, stream=False))
    assert [rr.rtype for rr in without.ar] == [QTYPE.A]


def test_what_follows_an_opt_record_is_left_away(ask: Ask) -> None:
    message = ask("a.example")
    record = DNSRecord(DNSHeader(id=7, qr=1, ra=1), [DNSQuestion("a.example")])
    record.add_answer(RR("a.example", QTYPE.A, ttl=60, rdata=A("192.0.2.1")))
    record.add_ar(EDNS0(udp_len=4096), RR("b.example", QTYPE.A, ttl=1, rdata=A("192.0.2.2")))
    answer = parse_answer(bytes(record.pack()), parse_query(message))
    reply = DNSRecord.parse(answer.render(parse_query(message), 10, stream=False))
    assert ([str(rr.rdata) for rr in reply.rr], reply.ar, reply.a.ttl) == (["192.0.2.1"], [], 50)


@pytest.mark.parametrize(("flags", "seen"), [({}, 0), ({"ad": 1}, 1), ({"edns": 1232, "dnssec_ok": True}, 1)])
def test_authentic_data_is_told_to_who_understands_it(
    ask: Ask, respond: Respond, flags: dict[str, int], seen: int
) -> None:
    message = ask("www.example.org", **flags)
    answer = parse_answer(respond(message, CHAIN, ad=1), parse_query(message))
    assert DNSRecord.parse(answer.render(parse_query(message), 0, stream=False)).header.ad == seen


def test_an_answer_too_long_for_udp_is_truncated_for_udp_alone(ask: Ask, respond: Respond) -> None:
    message = ask("Long.example", "TXT", edns=4096)
    zone = "\n".join(f'long.example. 60 TXT "{i:0250}"' for i in range(230))
    query = parse_query(message)
    answer = parse_answer(respond(message, zone), query)
    assert len(answer.wire) > 59_000
    by_udp = answer.render(query, 0, stream=False)
    short = DNSRecord.parse(by_udp)
    assert (short.header.tc, short.rr, str(short.q.qname), len(by_udp) < 60) == (1, [], "Long.example.", True)
    whole = DNSRecord.parse(answer.render(query, 0, stream=True))
    assert (whole.header.tc, len(whole.rr)) == (0, 230)


def test_an_answer_that_was_truncated_on_its_way_is_passed_on_as_such(ask: Ask, respond: Respond) -> None:
    query = parse_query(ask("www.example.org"))
    answer = parse_answer(respond(ask("www.example.org"), CHAIN, tc=1), query)
    assert answer.lifetime is None
    assert DNSRecord.parse(answer.render(query, 0, stream=True)).header.tc == 1


@pytest.mark.parametrize(
    ("rcode", "zone", "minimum", "lifetime"),
    [
        pytest.param("NXDOMAIN", "", 30, 30, id="no such name: the minimum of the SOA record"),
        pytest.param("NXDOMAIN", "", 9000, 600, id="or its TTL"),
        pytest.param("NOERROR", "", 30, 30, id="nothing of this type"),
        pytest.param(
            "NXDOMAIN", "www.example.org. 10 CNAME gone.example.org.", 30, 10, id="an alias of nothing"
        ),
        pytest.param(
            "NOERROR", "www.example.org. 10 CNAME empty.example.org.", 5, 5, id="an alias of something else"
        ),
        pytest.param("NXDOMAIN", "", None, None, id="without a SOA record nothing is remembered"),
        pytest.param("NOERROR", "", None, None, id="nor an empty answer"),
        pytest.param("SERVFAIL", "", 30, None, id="nor a failure"),
        pytest.param("REFUSED", "", 30, None, id="of any kind"),
    ],
)
def test_for_how_long_a_negative_answer_holds(
    ask: Ask, respond: Respond, rcode: str, zone: str, minimum: int | None, lifetime: int | None
) -> None:
    message = ask("www.example.org")
    authority = SOA.format(minimum=minimum) if minimum is not None else ""
    answer = parse_answer(respond(message, zone, authority=authority, rcode=rcode), parse_query(message))
    assert answer.lifetime == lifetime
    assert answer.negative is (rcode in ("NXDOMAIN", "NOERROR"))


def test_a_soa_record_too_short_for_a_minimum_says_nothing(ask: Ask) -> None:
    message = ask("a.example")
    denial = b"\x00\x00\x06\x00\x01\x00\x00\x00\x3c\x00\x04\x00\x00\x00\x3c"
    answer = b"\x00\x07\x81\x83\x00\x01\x00\x00\x00\x01\x00\x00" + message[12:] + denial
    assert parse_answer(answer, parse_query(message)).lifetime is None


def test_what_is_no_answer_to_the_question_is_named(ask: Ask, respond: Respond) -> None:
    message = ask("www.example.org", edns=1232)
    query = parse_query(message)
    good = respond(message, CHAIN)
    bad_version = bytearray(good)
    bad_version[-6] = 1
    for answer, reason in [
        (good[:11], "dns-bad-answer"),
        (message, "dns-bad-answer"),
        (good[:12], "dns-wrong-answer"),
        (good[:4] + b"\0\0" + good[6:], "dns-wrong-answer"),
        (respond(ask("www.example.net"), ""), "dns-wrong-answer"),
        (respond(ask("www.example.org", "AAAA"), ""), "dns-wrong-answer"),
        (respond(ask("www.example.org", class_=3), ""), "dns-wrong-answer"),
        (good[:-12], "dns-bad-record"),
        (bytes(bad_version), "dns-bad-edns"),
    ]:
        with pytest.raises(DnsError) as caught:
            parse_answer(answer, query)
        assert caught.value.reason == reason


def test_the_same_question_in_other_letters_is_the_same(ask: Ask) -> None:
    assert same_question(ask("WWW.example.org"), parse_query(ask("www.Example.org")).question)
    assert not same_question(ask("www.example.org")[:-1], parse_query(ask("www.example.org")).question)


# --- addresses ------------------------------------------------------------------------------------


def test_addresses_are_found_behind_aliases_in_any_order(ask: Ask, respond: Respond) -> None:
    backwards = "\n".join(reversed(CHAIN.strip().splitlines()))
    for zone in (CHAIN, backwards):
        found = addresses_in(respond(ask("WWW.example.org"), zone), RecordType.A)
        assert sorted(found) == ["192.0.2.1", "192.0.2.2"]
    v6 = respond(ask("a.example", "AAAA"), "a.example. 60 AAAA 2001:db8::1")
    assert addresses_in(v6, RecordType.AAAA) == ["2001:db8::1"]


def test_addresses_of_other_names_do_not_count(ask: Ask, respond: Respond) -> None:
    stranger = respond(ask("a.example"), "b.example. 60 A 192.0.2.66")
    assert addresses_in(stranger, RecordType.A) == []
    glue = respond(ask("a.example"), "", additional="a.example. 60 A 192.0.2.66")
    assert addresses_in(glue, RecordType.A) == []
    chaos = bytearray(respond(ask("a.example"), "a.example. 60 A 192.0.2.66"))
    chaos[-11] = 3
    assert addresses_in(bytes(chaos), RecordType.A) == []


def test_aliases_in_a_ring_are_an_error(ask: Ask, respond: Respond) -> None:
    ring = respond(ask("a.example"), "a.example. 60 CNAME b.example.\nb.example. 60 CNAME a.example.")
    with pytest.raises(DnsError, match="dns-too-many-aliases"):
        addresses_in(ring, RecordType.A)


def test_records_whose_data_is_not_what_the_type_says_are_an_error(ask: Ask, respond: Respond) -> None:
    good = respond(ask("a.example"), "a.example. 60 A 192.0.2.1")
    with pytest.raises(DnsError, match="dns-bad-record"):
        addresses_in(good[:-5] + b"\x03\xc0\x00\x02", RecordType.A)
    record = DNSRecord(DNSHeader(qr=1), [DNSQuestion("a.example")])
    record.add_answer(RR("a.example", QTYPE.CNAME, ttl=60, rdata=CNAME("bb.example")))
    alias = bytes(record.pack())
    with pytest.raises(DnsError, match="dns-bad-record"):
        addresses_in(alias[:-5] + b"\x01b\x00xx", RecordType.A)


def test_a_message_made_to_be_slow_is_refused_at_once(ask: Ask) -> None:
    # 2,900 addresses whose owner is one name of 8,000 labels: half a minute for a reader without bounds.
    bomb = b"\x00\x07\x81\x80\x00\x01\x0b\x54\x00\x00\x00\x00" + b"\x01a" * 8000 + b"\x00\x00\x01\x00\x01"
    bomb += b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x01\x00\x04abcd" * 2900
    with pytest.raises(DnsError, match="dns-bad-name"):
        addresses_in(bomb, RecordType.A)


def good_answer() -> bytes:
    record = DNSRecord(DNSHeader(id=7, qr=1, ra=1), [DNSQuestion("www.example.org")])
    record.add_answer(*RR.fromZone(CHAIN))
    record.add_auth(*RR.fromZone(SOA.format(minimum=60)))
    record.add_ar(EDNS0(udp_len=1232))
    return bytes(record.pack())


GOOD = good_answer()
DAMAGE = st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=8)


@given(DAMAGE, st.integers(0, len(GOOD)))
def test_a_damaged_answer_is_an_answer_or_an_error(damage: list[tuple[int, int]], keep: int) -> None:
    query = parse_query(GOOD[:2] + b"\x01\x00\x00\x01" + bytes(6) + GOOD[12:33])
    message = bytearray(GOOD)
    for offset, value in damage:
        message[offset] = value
    for candidate in (bytes(message), bytes(message[:keep])):
        try:
            answer = parse_answer(candidate, query)
        except DnsError:
            continue
        for age in (0, 50, 10**6):
            reply = answer.render(query, age, stream=True)
            assert reply[12:33] == query.question
            parse_answer(reply, query)
        try:
            addresses_in(candidate, RecordType.A)
        except DnsError as error:
            assert error.reason in ("dns-bad-name", "dns-bad-record", "dns-too-many-aliases")


def test_of_thousands_of_addresses_some_are_read(ask: Ask) -> None:
    """Nobody tries them all, and reading them takes time."""
    question = b"\x01a\x07example\x00\x00\x01\x00\x01"
    records = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x01\x00\x04abcd" * 4000
    message = b"\x00\x07\x81\x80\x00\x01\x0f\xa0\x00\x00\x00\x00" + question + records
    assert addresses_in(message, RecordType.A) == ["97.98.99.100"] * MAX_RECORDS
