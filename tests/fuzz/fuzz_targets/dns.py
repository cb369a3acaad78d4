"""DNS: what clients ask, what resolvers answer, and the service between them."""

from __future__ import annotations

from contextlib import suppress

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.dns.answer import addresses_in, parse_answer, same_question
from halftunnel_vpn.dns.dns_config import DnsServiceConfig
from halftunnel_vpn.dns.dns_service import DnsService
from halftunnel_vpn.dns.hints import ALL_HINTS, without_hints
from halftunnel_vpn.dns.message import Query, address_query, local_answer, parse_query, refuse
from halftunnel_vpn.dns.message_reader import HEADER, MAX_TTL, Rcode, RecordType, read_name
from halftunnel_vpn.dns.upstream import parse_resolv_conf
from halftunnel_vpn.errors import DnsError
from halftunnel_vpn.protocol.dns_framing import MAX_MESSAGE

QUESTION = b"\x03www\x07example\x00\x00\x01\x00\x01"
QUERY = HEADER.pack(1, 0x0100, 1, 0, 0, 0) + QUESTION


async def _nobody(*_question: object) -> bytes:
    raise DnsError("dns-bad-answer")


def service() -> DnsService:
    """A resolver in fake-ip mode that reaches no other one: every question is answered at once."""
    config = DnsServiceConfig(
        mode="fake-ip",
        hosts={"router.example": ["192.0.2.1", "2001:db8::1"]},
        block=["ads.example"],
        fake_exclude=["real.example"],
    )
    return DnsService(config, _nobody, _nobody, lambda: 100.0, Counters())


def _check_reply(reply: bytes, query: Query, *, stream: bool) -> None:
    assert reply[:2] == query.identifier.to_bytes(2, "big") and reply[2] & 0x80
    assert stream or len(reply) <= max(query.udp_limit, HEADER.size + len(query.question) + 11)


def dns_query(data: bytes) -> None:
    """A client's query: read, refused, answered, passed on."""
    try:
        query = parse_query(data)
    except DnsError as error:
        refusal = refuse(data, error)
        assert refusal is None or refusal[:2] == data[:2]
        return
    assert query.name == query.name.lower()
    again = parse_query(query.question_to_forward(7))
    assert again.key == query.key
    for stream in (False, True):
        _check_reply(local_answer(query, Rcode.SERVFAIL, stream=stream), query, stream=stream)
    with suppress(DnsError):
        address_query(query.name, RecordType.A)


def dns_answer(data: bytes) -> None:
    """A resolver's answer to one question: read, bounded, given to a client."""
    query = parse_query(QUERY)
    same_question(data, query.question)
    with suppress(DnsError):
        shown = without_hints(data, query, ALL_HINTS, hide_records=True)
        assert len(shown) <= MAX_MESSAGE
        assert shown == without_hints(shown, query, ALL_HINTS, hide_records=True)
    try:
        answer = parse_answer(data, query)
    except DnsError:
        return
    answer.bound_ttls(1, 86400)
    assert answer.lifetime is None or 0 <= answer.lifetime <= MAX_TTL
    for stream in (False, True):
        for age in (0, 5000):
            reply = answer.render(query, age, stream=stream)
            _check_reply(reply, query, stream=stream)
            parse_answer(reply, query)


def dns_addresses(data: bytes) -> None:
    """The addresses in an answer, behind aliases."""
    for type_, length in ((RecordType.A, 4), (RecordType.AAAA, 16)):
        with suppress(DnsError):
            for address in addresses_in(data, type_):
                assert ("." in address) == (length == 4)
    with suppress(DnsError):
        assert len(read_name(data, len(data) // 2)) <= 4 * 255


def dns_service(data: bytes) -> None:
    """A query to the client's resolver, by both transports: one answer at the most."""
    resolver = service()
    for stream in (False, True):
        replies: list[bytes] = []
        resolver.query(data, replies.append, stream=stream)
        assert len(replies) <= 1


def resolv_conf(data: bytes) -> None:
    """The host's list of resolvers."""
    parse_resolv_conf(data.decode("utf-8", "replace"))
