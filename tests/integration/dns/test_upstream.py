"""Resolvers asked on loopback: real sockets, every test under asyncio and under uvloop."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from dnslib import RCODE, RR, DNSRecord

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.dns import upstream
from halftunnel_vpn.dns.turns import TurnLimits
from halftunnel_vpn.dns.upstream import DirectResolvers, UpstreamResolver, open_socket
from halftunnel_vpn.errors import ConfigError, DnsError

Ask = Callable[..., bytes]
NameServer = Any


def resolver_for(*servers: NameServer, counters: Counters | None = None, **more: Any) -> UpstreamResolver:
    more.setdefault("timeout", 1.0)
    return UpstreamResolver([s.address for s in servers], counters=counters or Counters(), **more)


def silent(message: bytes) -> list[bytes]:
    return []


def long_text(count: int) -> list[RR]:
    records: list[RR] = RR.fromZone("\n".join(f'long.example. 60 TXT "{i:0250}"' for i in range(count)))
    return records


async def test_a_question_is_answered_under_its_own_id_and_spelling(server: NameServer, ask: Ask) -> None:
    answer = DNSRecord.parse(await resolver_for(server).query(ask("PLAIN.Example", identifier=4711)))
    assert (answer.header.id, str(answer.q.qname), str(answer.a.rdata)) == (
        4711,
        "PLAIN.Example.",
        "192.0.2.3",
    )


async def test_ids_and_ports_are_new_for_every_question(server: NameServer, ask: Ask) -> None:
    resolver = resolver_for(server)
    for _ in range(20):
        await resolver.query(ask("plain.example", identifier=7))
    ids = {record.header.id for _, record in server.queries}
    assert len(ids) > 15
    assert len(set(server.ports)) > 15


async def test_the_answer_has_the_spelling_of_the_question_even_if_the_server_has_another(
    server: NameServer, ask: Ask
) -> None:
    server.by_udp = lambda message: [server.answer(message).replace(b"PLAIN", b"plain")]
    answer = DNSRecord.parse(await resolver_for(server).query(ask("PLAIN.example")))
    assert str(answer.q.qname) == "PLAIN.example."


async def test_ipv6_resolvers_are_asked(server_v6: NameServer, ask: Ask) -> None:
    answer = await resolver_for(server_v6).query(ask("plain.example"))
    assert str(DNSRecord.parse(answer).a.rdata) == "192.0.2.3"


async def test_a_truncated_answer_is_had_by_tcp(server: NameServer, ask: Ask) -> None:
    server.records = long_text(230)
    counters = Counters()
    whole = await resolver_for(server, counters=counters).query(ask("LONG.example", "TXT", identifier=9))
    answer = DNSRecord.parse(whole)
    assert len(whole) > 59_000
    assert (answer.header.id, answer.header.tc, len(answer.rr), str(answer.q.qname)) == (
        9,
        0,
        230,
        "LONG.example.",
    )
    assert [way for way, _ in server.queries] == ["udp", "tcp"]
    assert counters.counted == {"dns-asked-by-tcp": 1}


async def test_answers_to_other_questions_are_ignored_and_counted(server: NameServer, ask: Ask) -> None:
    def surrounded_by_guesses(message: bytes) -> list[bytes]:
        good = server.answer(message)
        wrong_id = bytes((good[0], good[1] ^ 1)) + good[2:]
        other_name = good.replace(b"plain", b"other")
        no_response = message
        return [wrong_id, other_name, no_response, good[:11], good]

    server.by_udp = surrounded_by_guesses
    counters = Counters()
    answer = await resolver_for(server, counters=counters).query(ask("plain.example"))
    assert str(DNSRecord.parse(answer).a.rdata) == "192.0.2.3"
    assert counters.dropped == {"dns-wrong-answer": 4}


async def test_many_wrong_answers_make_it_ask_by_tcp(server: NameServer, ask: Ask) -> None:
    server.by_udp = lambda message: [b"guess" * 5] * upstream.MAX_WRONG_ANSWERS
    counters = Counters()
    answer = await resolver_for(server, counters=counters).query(ask("plain.example"))
    assert str(DNSRecord.parse(answer).a.rdata) == "192.0.2.3"
    assert counters.dropped == {"dns-wrong-answer": upstream.MAX_WRONG_ANSWERS}
    assert [way for way, _ in server.queries] == ["udp", "tcp"]


async def test_a_wrong_answer_by_tcp_is_an_error(server: NameServer, ask: Ask) -> None:
    server.records = long_text(30)
    server.by_tcp = lambda message: server.answer(message).replace(b"long", b"gone")
    with pytest.raises(DnsError, match="dns-wrong-answer"):
        await resolver_for(server, attempts=1).query(ask("long.example", "TXT"))


async def test_a_connection_closed_in_mid_answer_is_an_error(server: NameServer, ask: Ask) -> None:
    server.records = long_text(30)

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(2)
        writer.write(b"\x10\x00half")
        writer.close()

    half = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = half.sockets[0].getsockname()[1]
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        server.datagrams, local_addr=("127.0.0.1", port)
    )
    try:
        resolver = UpstreamResolver([("127.0.0.1", port)], counters=Counters(), attempts=1)
        with pytest.raises(DnsError, match="dns-closed"):
            await resolver.query(ask("long.example", "TXT"))
    finally:
        transport.close()
        half.close()
        await half.wait_closed()


# --- servers that fail ----------------------------------------------------------------------------


async def test_a_server_that_never_answers_ends_in_an_error_in_bounded_time(
    server: NameServer, ask: Ask
) -> None:
    server.by_udp = silent
    counters = Counters()
    began = time.monotonic()
    with pytest.raises(DnsError, match="dns-timeout"):
        await resolver_for(server, counters=counters, timeout=0.05, attempts=3).query(ask("plain.example"))
    assert 0.14 < time.monotonic() - began < 10.0
    assert len(server.queries) == counters.dropped["dns-timeout"] == 3


async def test_the_next_server_is_asked_and_then_preferred(
    server: NameServer, second: NameServer, ask: Ask
) -> None:
    server.by_udp = silent
    resolver = resolver_for(server, second, timeout=0.3)
    for _ in range(3):
        assert str(DNSRecord.parse(await resolver.query(ask("plain.example"))).a.rdata) == "192.0.2.3"
    assert (len(server.queries), len(second.queries)) == (1, 3)


async def test_a_server_that_is_not_there_costs_no_time(server: NameServer, ask: Ask) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = unused.getsockname()
    counters = Counters()
    resolver = UpstreamResolver([nobody, server.address], counters=counters, timeout=20.0)
    began = time.monotonic()
    assert await resolver.query(ask("plain.example"))
    assert time.monotonic() - began < 15.0, "not the time-out"
    assert counters.dropped == {"dns-unreachable": 1}
    with pytest.raises(DnsError, match="dns-unreachable"):
        await UpstreamResolver([nobody], counters=counters, timeout=20.0).query(ask("plain.example"))


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED", "NOTIMP"])
async def test_a_server_that_reports_a_failure_is_asked_once_and_the_next_tried(
    server: NameServer, second: NameServer, ask: Ask, rcode: str
) -> None:
    server.by_udp = lambda message: [server.answer(message, rcode=rcode)]
    both = await resolver_for(server, second).query(ask("plain.example"))
    assert DNSRecord.parse(both).header.rcode == RCODE.NOERROR
    alone = await resolver_for(server, attempts=3).query(ask("plain.example"))
    assert DNSRecord.parse(alone).header.rcode == getattr(RCODE, rcode)
    assert len(server.queries) == 2
    second.by_udp = silent
    mixed = await resolver_for(server, second, timeout=0.05).query(ask("plain.example"))
    assert DNSRecord.parse(mixed).header.rcode == getattr(RCODE, rcode)
    assert (len(server.queries), len(second.queries)) == (3, 3)


@pytest.mark.parametrize("is_whole", [True, False], ids=["with the question", "the header alone"])
async def test_a_server_that_knows_no_edns_is_asked_without(
    server: NameServer, second: NameServer, ask: Ask, is_whole: bool
) -> None:
    def old(message: bytes) -> list[bytes]:
        if not DNSRecord.parse(message).ar:
            return [server.answer(message)]
        refusal = server.answer(message, rcode="FORMERR")
        return [refusal if is_whole else refusal[:4] + bytes(8)]

    server.by_udp = old
    counters = Counters()
    answer = await resolver_for(server, second, counters=counters).query(ask("Plain.example", edns=1232))
    assert str(DNSRecord.parse(answer).a.rdata) == "192.0.2.3"
    assert (len(server.queries), len(second.queries), counters.dropped) == (2, 0, {})
    assert {str(record.q.qname) for _, record in server.queries} == {"Plain.example."}
    assert await resolver_for(server).resolve("plain.example", 4) == ["192.0.2.3"]


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED", "NOTIMP"])
async def test_a_refusal_without_the_question_costs_no_time(
    server: NameServer, second: NameServer, ask: Ask, rcode: str
) -> None:
    server.by_udp = lambda message: [server.answer(message, rcode=rcode)[:4] + bytes(8)]
    counters = Counters()
    answer = await resolver_for(server, second, counters=counters, timeout=60.0).query(ask("plain.example"))
    assert DNSRecord.parse(answer).rr and counters.dropped == {}
    alone = DNSRecord.parse(await resolver_for(server, timeout=60.0).query(ask("plain.example")))
    assert (alone.header.rcode, str(alone.q.qname)) == (getattr(RCODE, rcode), "plain.example.")


async def test_an_answer_whose_records_are_damaged_is_not_passed_on(
    server: NameServer, second: NameServer, ask: Ask
) -> None:
    server.by_udp = lambda message: [server.answer(message)[:-3]]
    counters = Counters()
    answer = await resolver_for(server, second, counters=counters).query(ask("plain.example"))
    assert DNSRecord.parse(answer).rr
    assert counters.dropped == {"dns-bad-record": 1}


async def test_a_denial_is_an_answer(server: NameServer, second: NameServer, ask: Ask) -> None:
    answer = DNSRecord.parse(await resolver_for(server, second).query(ask("no.example")))
    assert (answer.header.rcode, len(second.queries)) == (RCODE.NXDOMAIN, 0)


async def test_a_malformed_query_reaches_no_server(server: NameServer, ask: Ask) -> None:
    for message in (b"", ask("plain.example")[:-1], ask("plain.example")[:12] + b"\xc0\x0c\x00\x01\x00\x01"):
        with pytest.raises(DnsError):
            await resolver_for(server).query(message)
    assert server.queries == []


async def test_without_servers_there_is_no_answer(ask: Ask) -> None:
    with pytest.raises(DnsError, match="dns-no-resolver"):
        await UpstreamResolver([], counters=Counters()).query(ask("plain.example"))


def test_a_server_must_be_an_address() -> None:
    with pytest.raises(ConfigError, match=r"'ns\.example'"):
        UpstreamResolver([("ns.example", 53)], counters=Counters())


# --- bounds ---------------------------------------------------------------------------------------


async def test_a_storm_is_bounded_in_sockets_and_in_waiting(server: NameServer, ask: Ask) -> None:
    arrived = asyncio.Event()
    held: list[bytes] = []

    def hold(message: bytes) -> list[bytes]:
        held.append(message)
        if len(held) == 8:
            arrived.set()
        return []

    server.by_udp = hold
    limits = TurnLimits(per_client=8, total=8, reserve=0, waiting_per_client=22, waiting=22)
    resolver = resolver_for(server, timeout=0.3, attempts=1, limits=limits)
    asked = [asyncio.create_task(resolver.query(ask(f"{i}.example"))) for i in range(40)]
    await asyncio.wait_for(arrived.wait(), 30.0)
    done = [task for task in asked if task.done()]
    assert len(done) == 10
    assert {str(task.exception()) for task in done} == {"dns-client-limit"}
    assert len(held) == 8
    server.by_udp = lambda message: [server.answer(message)]
    results = await asyncio.gather(*asked, return_exceptions=True)
    reasons = [result.reason for result in results if isinstance(result, DnsError)]
    assert sorted(set(reasons)) == ["dns-client-limit", "dns-timeout"]
    assert (reasons.count("dns-timeout"), len(results) - len(reasons)) == (8, 22)


async def test_slow_questions_of_one_client_delay_nobody_else(server: NameServer, ask: Ask) -> None:
    """They are more than there are places on the network, and each takes its whole time-out."""
    server.by_udp = lambda message: [] if b"slow" in message else [server.answer(message)]
    resolver = resolver_for(server, timeout=60.0, limits=TurnLimits())
    slow = [asyncio.create_task(resolver.query(ask(f"slow{i}.example"), "hostile")) for i in range(300)]
    await asyncio.wait(slow, timeout=0, return_when=asyncio.FIRST_COMPLETED)
    began = time.monotonic()
    answer = await resolver.query(ask("plain.example"), "modest")
    assert str(DNSRecord.parse(answer).a.rdata) == "192.0.2.3"
    assert time.monotonic() - began < 20
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    assert (resolver.turns.under_way, resolver.turns.waiting) == (0, 0)


async def test_no_socket_is_left_open(server: NameServer, ask: Ask) -> None:
    resolver = resolver_for(server, timeout=1.0, attempts=1)
    server.by_udp = silent
    results = await asyncio.gather(
        *(resolver.query(ask(f"{i}.example")) for i in range(50)), return_exceptions=True
    )
    assert all(isinstance(result, DnsError) for result in results)
    cancelled = asyncio.create_task(resolver.query(ask("plain.example")))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    server.by_udp = lambda message: [server.answer(message)]
    # The descriptors of the closed sockets are used again: a reader left behind would be woken by them.
    answers = await asyncio.gather(*(resolver.query(ask("plain.example", identifier=i)) for i in range(50)))
    assert [DNSRecord.parse(answer).header.id for answer in answers] == list(range(50))


# --- addresses of names ---------------------------------------------------------------------------


async def test_names_are_resolved_through_their_aliases(server: NameServer) -> None:
    resolver = resolver_for(server)
    assert sorted(await resolver.resolve("www.example.org", 4)) == ["192.0.2.1", "192.0.2.2"]
    assert await resolver.resolve("WWW.example.org", 6) == ["2001:db8::1"]
    assert await resolver.resolve("plain.example", 6) == []


async def test_names_that_do_not_resolve_are_errors(server: NameServer) -> None:
    resolver = resolver_for(server, attempts=1)
    for name, reason in [
        ("no.example", "dns-no-such-name"),
        ("ring.example", "dns-too-many-aliases"),
        ("a..example", "dns-bad-name"),
    ]:
        with pytest.raises(DnsError, match=reason):
            await resolver.resolve(name, 4)
    server.by_udp = lambda message: [server.answer(message, rcode="REFUSED")]
    with pytest.raises(DnsError, match="dns-refused"):
        await resolver.resolve("plain.example", 4)


# --- groups and marks -----------------------------------------------------------------------------


async def test_each_split_domain_has_its_own_resolvers(
    server: NameServer, second: NameServer, ask: Ask
) -> None:
    direct = DirectResolvers(counters=Counters(), timeout=1.0)
    for _ in range(2):
        await direct((server.address,), ask("plain.example"))
        await direct((second.address,), ask("www.example.org"))
    assert [str(record.q.qname) for _, record in server.queries] == ["plain.example."] * 2
    assert [str(record.q.qname) for _, record in second.queries] == ["www.example.org."] * 2


@pytest.mark.root
@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_sockets_carry_the_mark(kind: socket.SocketKind) -> None:
    for server in (("127.0.0.1", 53), ("::1", 53)):
        with open_socket(server, kind, 0x4854) as marked, open_socket(server, kind, None) as plain:
            assert marked.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == 0x4854
            assert plain.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == 0
            assert marked.getblocking() is False
