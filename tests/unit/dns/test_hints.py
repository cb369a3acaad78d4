"""Answers without the addresses that nobody asked for; dnslib writes them and reads them back."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from dnslib import DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from halftunnel_vpn.dns.answer import parse_answer
from halftunnel_vpn.dns.hints import ALL_HINTS, IPV6_HINTS, without_hints
from halftunnel_vpn.dns.message import parse_query
from halftunnel_vpn.dns.message_reader import HEADER
from halftunnel_vpn.errors import DnsError

Ask = Callable[..., bytes]
Respond = Callable[..., bytes]

HINTS = "ipv4hint=192.0.2.1,192.0.2.2 ipv6hint=2001:db8::1"
SERVICE = f"www.example. 60 HTTPS 1 . alpn=h2,h3 port=8443 {HINTS}"
QUESTION = b"\x03www\x07example\x00\x00\x41\x00\x01"
QUERY = parse_query(HEADER.pack(1, 0x0100, 1, 0, 0, 0) + QUESTION)


def stripped(ask: Ask, respond: Respond, zone: str, type_: str = "HTTPS", **sections: str) -> DNSRecord:
    query = ask("www.example", type_)
    message = without_hints(
        respond(query, zone, **sections), parse_query(query), ALL_HINTS, hide_records=True
    )
    parse_answer(message, parse_query(query))
    return DNSRecord.parse(message)


def raw_service(parameters: bytes, target: bytes = b"\x00") -> bytes:
    """An answer with one HTTPS record, written by hand."""
    data = b"\x00\x01" + target + parameters
    record = b"\xc0\x0c" + struct.pack("!HHIH", 65, 1, 60, len(data)) + data
    return HEADER.pack(1, 0x8180, 1, 1, 0, 0) + QUESTION + record


def parameter(key: int, value: bytes) -> bytes:
    return struct.pack("!HH", key, len(value)) + value


@pytest.mark.parametrize("type_", ["HTTPS", "SVCB"])
def test_hints_go_and_everything_else_stays(ask: Ask, respond: Respond, type_: str) -> None:
    if type_ == "HTTPS":
        reply = stripped(ask, respond, SERVICE)
        (service,) = reply.rr
        assert str(service.rdata) == "1 . alpn=h2,h3 port=8443"
        assert service.ttl == 60
    else:
        parameters = parameter(3, b"\x00\x35") + parameter(4, b"\xc0\x00\x02\x01") + parameter(5, b"ech")
        question = QUESTION[:-4] + b"\x00\x40\x00\x01"
        message = (
            raw_service(parameters)
            .replace(QUESTION, question)
            .replace(b"\xc0\x0c\x00\x41", b"\xc0\x0c\x00\x40")
        )
        query = parse_query(HEADER.pack(1, 0x0100, 1, 0, 0, 0) + question)
        result = without_hints(message, query, ALL_HINTS, hide_records=True)
        assert result.endswith(b"\x00\x01\x00" + parameter(3, b"\x00\x35") + parameter(5, b"ech"))


def test_where_only_ipv6_leads_nowhere_its_hints_alone_go(ask: Ask, respond: Respond) -> None:
    query = ask("www.example", "HTTPS")
    message = without_hints(respond(query, SERVICE), parse_query(query), IPV6_HINTS, hide_records=False)
    assert (
        str(DNSRecord.parse(message).rr[0].rdata) == "1 . alpn=h2,h3 port=8443 ipv4hint=192.0.2.1,192.0.2.2"
    )


def test_aliases_before_the_service_stay(ask: Ask, respond: Respond) -> None:
    zone = f"www.example. 60 CNAME edge.example.\nedge.example. 30 HTTPS 1 pop.example. {HINTS}"
    reply = stripped(ask, respond, zone, additional="pop.example. 60 A 192.0.2.1")
    assert [(str(rr.rname), str(rr.rdata)) for rr in reply.rr] == [
        ("www.example.", "edge.example."),
        ("edge.example.", "1 pop.example."),
    ]
    assert not reply.ar


def test_additional_addresses_go_and_what_is_signed_stays_signed(ask: Ask, respond: Respond) -> None:
    zone = "www.example. 60 MX 10 mail.example."
    reply = stripped(
        ask,
        respond,
        zone,
        "MX",
        authority="example. 60 NS ns.example.",
        additional="mail.example. 60 A 192.0.2.1",
    )
    assert (len(reply.rr), len(reply.auth), len(reply.ar)) == (1, 1, 0)
    assert str(reply.rr[0].rdata) == "10 mail.example."


def test_an_answer_without_addresses_is_left_as_it_is(ask: Ask, respond: Respond) -> None:
    query = ask("www.example", "HTTPS", edns=1232, dnssec_ok=True)
    message = respond(query, "www.example. 60 HTTPS 1 . alpn=h2")
    assert without_hints(message, parse_query(query), ALL_HINTS, hide_records=True) == message


def test_addresses_among_the_answers_to_another_question_are_refused(ask: Ask, respond: Respond) -> None:
    with pytest.raises(DnsError, match="dns-unasked-address"):
        stripped(ask, respond, "www.example. 60 A 192.0.2.1")


def test_a_hint_that_was_mandatory_is_so_no_longer() -> None:
    hint = parameter(4, b"\xc0\x00\x02\x01")
    alone = without_hints(raw_service(parameter(0, b"\x00\x04") + hint), QUERY, ALL_HINTS, hide_records=True)
    assert alone.endswith(b"\x00\x03\x00\x01\x00"), "nothing but priority and target"
    both = raw_service(parameter(0, b"\x00\x03\x00\x04") + parameter(3, b"\x20\xfb") + hint)
    result = without_hints(both, QUERY, ALL_HINTS, hide_records=True)
    assert result.endswith(b"\x00\x01\x00" + parameter(0, b"\x00\x03") + parameter(3, b"\x20\xfb"))


def test_the_answer_is_no_longer_authentic() -> None:
    message = raw_service(parameter(4, b"\xc0\x00\x02\x01"))
    message = message[:3] + b"\xa0" + message[4:]
    assert without_hints(message, QUERY, ALL_HINTS, hide_records=True)[3] == 0x80


@pytest.mark.parametrize(
    "parameters",
    [b"\x00", b"\x00\x04\x00", parameter(4, b"\xc0\x00\x02\x01")[:-1], b"\x00\x04\xff\xff"],
)
def test_parameters_that_are_cut_short_are_an_error(parameters: bytes) -> None:
    with pytest.raises(DnsError, match="dns-bad-record"):
        without_hints(raw_service(parameters), QUERY, ALL_HINTS, hide_records=True)


def test_an_answer_that_would_become_too_long_is_an_error() -> None:
    """Its names are compressed, and there are thousands of them."""
    long = b"".join(b"\x3f" + bytes([97 + i]) * 63 for i in range(3)) + b"\x00"
    data = b"\x00\x01\x00" + parameter(4, b"\xc0\x00\x02\x01")
    service = struct.pack("!HHIH", 65, 1, 60, len(data)) + data
    first = long + service
    at = 12 + len(QUESTION)
    again = struct.pack("!H", 0xC000 | at) + service
    message = HEADER.pack(1, 0x8180, 1, 1 + 2000, 0, 0) + QUESTION + first + again * 2000
    assert len(message) < 65536
    with pytest.raises(DnsError, match="dns-bad-record"):
        without_hints(message, QUERY, ALL_HINTS, hide_records=True)


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_an_answer_or_an_error(tail: bytes, whole: bool) -> None:
    message = raw_service(tail) if whole else HEADER.pack(1, 0x8180, 1, 2, 1, 1) + QUESTION + tail
    try:
        result = without_hints(message, QUERY, ALL_HINTS, hide_records=True)
        parse_answer(result, QUERY)
    except DnsError:
        return
    assert result == without_hints(result, QUERY, ALL_HINTS, hide_records=True), "nothing is left to hide"
