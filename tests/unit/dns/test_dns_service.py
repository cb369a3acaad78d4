"""The service with an exit that answers as the test says, and a clock that the test turns."""

from __future__ import annotations

import asyncio
import ipaddress
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from dnslib import QTYPE, RCODE, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.dns.cache import REFRESH_INTERVAL, CacheLimits
from halftunnel_vpn.dns.dns_config import DnsServiceConfig, Server
from halftunnel_vpn.dns.dns_service import (
    MAX_QUERIES_IN_FLIGHT,
    MAX_REFRESHES,
    MAX_REPLIES_WAITING,
    DnsService,
)
from halftunnel_vpn.errors import DnsError, RoadError, SessionError
from halftunnel_vpn.flow.interfaces import DnsOutcome

Ask = Callable[..., bytes]
Respond = Callable[..., bytes]
Answering = Callable[[bytes], Awaitable[bytes]]


class Host:
    """One service, what it asked, and a clock."""

    def __init__(self, config: DnsServiceConfig, answering: Answering) -> None:
        self.now = 1000.0
        self.counters = Counters()
        self.asked: list[DNSRecord] = []
        self.asked_directly: list[tuple[Server, ...]] = []
        self._answering = answering
        self.service = DnsService(
            config, self._forward, self._direct, lambda: self.now, self.counters, first_fake=41
        )

    async def _forward(self, message: bytes) -> bytes:
        self.asked.append(DNSRecord.parse(message))
        return await self._answering(message)

    async def _direct(self, servers: tuple[Server, ...], message: bytes) -> bytes:
        self.asked_directly.append(servers)
        return await self._answering(message)

    async def query(self, message: bytes, *, stream: bool = False) -> DNSRecord:
        reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.service.query(message, reply.set_result, stream=stream)
        return DNSRecord.parse(await asyncio.wait_for(reply, 30.0))

    def query_now(self, message: bytes) -> DNSRecord:
        replies: list[bytes] = []
        self.service.query(message, replies.append, stream=False)
        (reply,) = replies
        return DNSRecord.parse(reply)

    async def settled(self) -> None:
        """The resolver that answers at once has answered everything."""
        for _ in range(100):
            if not self.service.in_flight:
                return
            await asyncio.sleep(0)
        raise AssertionError("a question is still on its way")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Host]:
        task = asyncio.create_task(self.service.run())
        await asyncio.sleep(0)
        try:
            yield self
        finally:
            self.service.close()
            await asyncio.wait_for(task, 30.0)


Zone = Callable[..., Answering]


@pytest.fixture
def zone(respond: Respond) -> Zone:
    """``zone("a.example. 60 A 192.0.2.1")`` answers every question with these records."""

    def make(text: str = "", **more: str) -> Answering:
        async def answering(message: bytes) -> bytes:
            return respond(message, text, **more)

        return answering

    return make


def data(record: DNSRecord) -> list[str]:
    return [str(rr.rdata) for rr in record.rr]


async def never(message: bytes) -> bytes:
    await asyncio.get_running_loop().create_future()
    raise AssertionError


# --- forward mode ---------------------------------------------------------------------------------


async def test_a_question_is_forwarded_once_and_answered_from_memory_then(ask: Ask, zone: Zone) -> None:
    async with Host(DnsServiceConfig(), zone("www.example.org. 60 A 192.0.2.1")).running() as host:
        first = await host.query(ask("WWW.example.org", identifier=11))
        assert (first.header.id, str(first.q.qname), data(first)) == (11, "WWW.example.org.", ["192.0.2.1"])
        host.now += 59.5
        second = host.query_now(ask("www.EXAMPLE.org", identifier=12))
        assert (second.header.id, str(second.q.qname), second.a.ttl) == (12, "www.EXAMPLE.org.", 1)
        assert str(host.asked[0].q.qname) == "www.example.org."
        assert len(host.asked) == 1
        host.now += 0.5
        assert (await host.query(ask("www.example.org"))).a.ttl == 60
        assert len(host.asked) == 2
        host.service.forget()
        await host.query(ask("www.example.org"))
        assert len(host.asked) == 3


async def test_a_chain_of_aliases_arrives_whole(ask: Ask, zone: Zone) -> None:
    chain = "\n".join(f"n{i}.example. 60 CNAME n{i + 1}.example." for i in range(8))
    async with Host(DnsServiceConfig(), zone(chain + "\nn8.example. 60 AAAA 2001:db8::8")).running() as host:
        answer = await host.query(ask("n0.example", "AAAA"))
        assert data(answer) == [f"n{i}.example." for i in range(1, 9)] + ["2001:db8::8"]


async def test_a_denial_is_remembered(ask: Ask, zone: Zone) -> None:
    soa = "example. 900 SOA ns.example. admin.example. 1 7200 900 86400 30"
    async with Host(DnsServiceConfig(), zone(authority=soa, rcode="NXDOMAIN")).running() as host:
        assert (await host.query(ask("no.example"))).header.rcode == RCODE.NXDOMAIN
        host.now += 29
        again = host.query_now(ask("no.example"))
        assert (again.header.rcode, again.auth[0].ttl) == (RCODE.NXDOMAIN, 1)
        assert len(host.asked) == 1


async def test_an_answer_too_long_for_udp_is_had_by_tcp_without_asking_again(ask: Ask, zone: Zone) -> None:
    texts = "\n".join(f'long.example. 60 TXT "{i:0250}"' for i in range(230))
    async with Host(DnsServiceConfig(), zone(texts)).running() as host:
        assert (await host.query(ask("long.example", "TXT", edns=4096))).header.tc == 1
        whole = await host.query(ask("long.example", "TXT", edns=4096), stream=True)
        assert (whole.header.tc, len(whole.rr), len(host.asked)) == (0, 230, 1)


async def test_the_same_question_on_its_way_is_not_asked_twice(ask: Ask, respond: Respond) -> None:
    arrived = asyncio.Event()

    async def slowly(message: bytes) -> bytes:
        await arrived.wait()
        return respond(message, "www.example.org. 60 A 192.0.2.1")

    async with Host(DnsServiceConfig(), slowly).running() as host:
        queries = [ask("wWw.example.org" if i % 2 else "www.example.org", identifier=i) for i in range(50)]
        waiting = [asyncio.create_task(host.query(query)) for query in queries]
        other = asyncio.create_task(host.query(ask("www.example.org", "AAAA")))
        await asyncio.sleep(0)
        assert host.service.in_flight == 2
        arrived.set()
        answers = await asyncio.gather(*waiting)
        assert [answer.header.id for answer in answers] == list(range(50))
        assert {str(answer.q.qname) for answer in answers} == {"wWw.example.org.", "www.example.org."}
        await other
        assert (len(host.asked), host.counters.counted["dns-queries-joined"]) == (2, 49)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SessionError("The session is gone."), "dns-no-path"),
        (RoadError("No leg.", reason="no-leg"), "dns-no-path"),
        (DnsError("dns-unreachable"), "dns-unreachable"),
        (ConnectionResetError(), "dns-no-path"),
        (TimeoutError(), "dns-timeout"),
    ],
)
async def test_a_road_that_fails_is_a_failure_at_once(ask: Ask, error: Exception, reason: str) -> None:
    async def failing(message: bytes) -> bytes:
        raise error

    async with Host(DnsServiceConfig(), failing).running() as host:
        assert (await host.query(ask("a.example"))).header.rcode == RCODE.SERVFAIL
        assert host.counters.dropped == {reason: 1}
        await host.query(ask("a.example"))
        assert len(host.asked) == 2, "our own failures are not remembered"
        assert host.service.in_flight == 0


async def test_a_fault_of_ours_is_a_failure_of_one_question(ask: Ask, respond: Respond) -> None:
    faults: list[Exception] = [IndexError("a fault"), ZeroDivisionError("another")]

    async def exit(message: bytes) -> bytes:
        if faults:
            raise faults.pop()
        return respond(message, "a.example. 60 A 192.0.2.1")

    def broken(_: bytes) -> None:
        raise RuntimeError("the device is gone")

    async with Host(DnsServiceConfig(), exit).running() as host:
        for _ in range(2):
            assert (await host.query(ask("a.example"))).header.rcode == RCODE.SERVFAIL
        host.service.query(ask("a.example"), broken, stream=False)
        assert data(await host.query(ask("a.example"))) == ["192.0.2.1"]
        assert host.counters.dropped == {"dns-failed": 2, "dns-reply-failed": 1}


async def test_an_exit_that_never_answers_is_a_failure_in_bounded_time(ask: Ask) -> None:
    async with Host(DnsServiceConfig(timeout=0.05), never).running() as host:
        assert (await host.query(ask("a.example"))).header.rcode == RCODE.SERVFAIL
        assert host.counters.dropped == {"dns-timeout": 1}
        assert host.service.in_flight == 0


async def test_an_answer_that_makes_no_sense_is_a_failure(ask: Ask, respond: Respond) -> None:
    answers = [b"", b"\xff" * 100, respond(ask("b.example"), "b.example. 60 A 192.0.2.1"), ask("a.example")]

    async def nonsense(message: bytes) -> bytes:
        return answers.pop()

    async with Host(DnsServiceConfig(), nonsense).running() as host:
        for _ in range(4):
            assert (await host.query(ask("a.example"))).header.rcode == RCODE.SERVFAIL
        assert host.counters.dropped == {"dns-bad-answer": 2, "dns-wrong-answer": 2}


async def test_a_storm_of_questions_is_bounded(ask: Ask) -> None:
    async with Host(DnsServiceConfig(), never).running() as host:
        refused: list[bytes] = []
        for i in range(3 * MAX_QUERIES_IN_FLIGHT):
            host.service.query(ask(f"{i}.example", identifier=i), refused.append, stream=False)
        assert host.service.in_flight == MAX_QUERIES_IN_FLIGHT // 2
        assert len(refused) == host.counters.dropped["dns-too-many-queries"] == 5 * MAX_QUERIES_IN_FLIGHT // 2
        assert {DNSRecord.parse(reply).header.rcode for reply in refused[:10]} == {RCODE.SERVFAIL}


async def test_however_many_clients_ask_without_end_there_is_room_for_another(ask: Ask) -> None:
    async with Host(DnsServiceConfig(), never).running() as host:
        refused: list[bytes] = []
        for client in (b"first", b"second", b"third"):
            for i in range(MAX_QUERIES_IN_FLIGHT):
                query = ask(f"{i}.{client.decode()}.example")
                host.service.query(query, refused.append, stream=False, client=client)
        before = len(refused)
        host.service.query(ask("www.example"), refused.append, stream=False, client=b"modest")
        assert len(refused) == before
        assert host.service.in_flight < MAX_QUERIES_IN_FLIGHT


async def test_a_storm_of_one_question_is_bounded_and_leaves_nothing_behind(
    ask: Ask, respond: Respond
) -> None:
    arrived = asyncio.Event()

    async def at_last(message: bytes) -> bytes:
        await arrived.wait()
        return respond(message, "a.example. 0 A 192.0.2.1")

    async with Host(DnsServiceConfig(), at_last).running() as host:
        replies: list[bytes] = []
        for i in range(MAX_REPLIES_WAITING // 2 - 1):
            host.service.query(ask("a.example", identifier=i), replies.append, stream=False)
        last = asyncio.create_task(host.query(ask("a.example")))
        await asyncio.sleep(0)
        assert (host.service.in_flight, len(replies)) == (1, 0)
        assert host.query_now(ask("a.example")).header.rcode == RCODE.SERVFAIL
        arrived.set()
        assert data(await last) == ["192.0.2.1"]
        assert len(replies) == MAX_REPLIES_WAITING // 2 - 1
        assert data(await host.query(ask("a.example"))) == ["192.0.2.1"]


KEEPING = DnsServiceConfig(cache=CacheLimits(max_stale=3600, prefetch=True))


async def test_an_answer_is_fetched_again_before_it_ends_and_nobody_waits(ask: Ask, zone: Zone) -> None:
    async with Host(KEEPING, zone("a.example. 60 A 192.0.2.1")).running() as host:
        await host.query(ask("a.example"))
        for seconds, ttl, in_flight in ((53.0, 7, 0), (2.0, 5, 1)):
            host.now += seconds
            assert host.query_now(ask("a.example")).a.ttl == ttl
            assert host.service.in_flight == in_flight
        await host.settled()
        assert host.query_now(ask("a.example")).a.ttl == 60
        assert len(host.asked) == 2 and host.counters.counted["dns-refreshes"] == 1


async def test_a_stale_answer_is_served_while_the_exit_is_asked_and_when_it_fails(
    ask: Ask, respond: Respond
) -> None:
    answers = [respond(ask("a.example"), f"a.example. 60 A 192.0.2.{number}") for number in (1, 2)]
    outcomes: list[bytes | Exception] = [answers[0], SessionError("gone"), answers[1]]

    async def answering(message: bytes) -> bytes:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return message[:2] + outcome[2:]

    async with Host(KEEPING, answering).running() as host:
        await host.query(ask("a.example"))
        for seconds, address in ((90.0, "192.0.2.1"), (REFRESH_INTERVAL, "192.0.2.1"), (1.0, "192.0.2.2")):
            host.now += seconds
            assert data(host.query_now(ask("a.example"))) == [address]
            await host.settled()
        assert not outcomes
        assert host.counters.dropped == {"dns-no-path": 1}


async def test_refreshes_are_bounded(ask: Ask, respond: Respond) -> None:
    refusing = asyncio.Event()

    async def answering(message: bytes) -> bytes:
        if refusing.is_set():
            return await never(message)
        name = DNSRecord.parse(message).q.qname
        return respond(message, f"{name} 60 A 192.0.2.1")

    async with Host(KEEPING, answering).running() as host:
        names = [f"n{number}.example" for number in range(MAX_REFRESHES + 10)]
        for name in names:
            await host.query(ask(name))
        refusing.set()
        host.now += 100
        for name in names:
            assert data(host.query_now(ask(name))) == ["192.0.2.1"]
        assert host.service.in_flight == MAX_REFRESHES
        assert host.counters.dropped == {"dns-too-many-refreshes": 10}


async def test_closing_forgets_what_is_on_its_way(ask: Ask, zone: Zone) -> None:
    host = Host(DnsServiceConfig(), never)
    replies: list[bytes] = []
    async with host.running():
        host.service.query(ask("started.example"), replies.append, stream=False)
        await asyncio.sleep(0)
        host.service.query(ask("not-started.example"), replies.append, stream=False)
    assert (host.service.in_flight, replies) == (0, [])
    assert host.query_now(ask("a.example")).header.rcode == RCODE.SERVFAIL
    assert host.counters.dropped == {"dns-not-running": 1}


async def test_rules_go_before_resolvers(ask: Ask, zone: Zone) -> None:
    config = DnsServiceConfig(
        hosts={"nas.home": ["192.0.2.9"]}, block=["ads.example"], split={"corp.example": [("192.0.2.53", 53)]}
    )
    async with Host(config, zone("www.corp.example. 60 A 10.0.0.1")).running() as host:
        assert data(host.query_now(ask("nas.home"))) == ["192.0.2.9"]
        assert host.query_now(ask("x.ads.example")).header.rcode == RCODE.NXDOMAIN
        assert data(await host.query(ask("www.corp.example"))) == ["10.0.0.1"]
        assert data(host.query_now(ask("www.corp.example"))) == ["10.0.0.1"], "from memory"
        assert (host.asked, host.asked_directly) == ([], [(("192.0.2.53", 53),)])


async def test_in_forward_mode_no_address_is_fake(ask: Ask) -> None:
    service = Host(DnsServiceConfig(), never).service
    address = ipaddress.ip_address("198.18.0.1").packed
    assert (service.name_of(address), service.address_of("a.example", 4), service.is_fake(address)) == (
        None,
        None,
        False,
    )


# --- fake-ip mode ---------------------------------------------------------------------------------


async def test_names_get_fake_addresses_of_both_families_without_asking_anyone(ask: Ask) -> None:
    host = Host(DnsServiceConfig(mode="fake-ip"), never)
    v4 = host.query_now(ask("WWW.example.org"))
    v6 = host.query_now(ask("www.example.org", "AAAA"))
    assert (data(v4), v4.a.ttl, data(v6)) == (["198.18.0.42"], 10, ["fd48:5456:f00d::2a"])
    for answer, version in ((v4, 4), (v6, 6)):
        address = ipaddress.ip_address(data(answer)[0]).packed
        assert host.service.name_of(address) == "www.example.org"
        assert host.service.address_of("www.example.org", version) == address
        assert host.service.is_fake(address)
    assert host.service.address_of("other.example", 4) is None
    assert host.service.is_fake(ipaddress.ip_address("198.19.0.1").packed), "of an earlier run, maybe"
    assert not host.service.is_fake(ipaddress.ip_address("192.0.2.1").packed)


async def test_a_fake_address_leads_back_to_its_name(ask: Ask, zone: Zone) -> None:
    async with Host(DnsServiceConfig(mode="fake-ip"), zone(rcode="NXDOMAIN")).running() as host:
        host.query_now(ask("www.example.org"))
        assert data(host.query_now(ask("42.0.18.198.in-addr.arpa", "PTR"))) == ["www.example.org."]
        assert host.query_now(ask("43.0.18.198.in-addr.arpa", "PTR")).header.rcode == RCODE.NXDOMAIN
        assert host.asked == []
        await host.query(ask("1.1.168.192.in-addr.arpa", "PTR"))
        assert [str(asked.q.qname) for asked in host.asked] == ["1.1.168.192.in-addr.arpa."]


async def test_rules_and_other_types_keep_their_meaning_in_fake_ip_mode(ask: Ask, zone: Zone) -> None:
    config = DnsServiceConfig(
        mode="fake-ip",
        ipv6=False,
        hosts={"nas.home": ["192.0.2.9"]},
        block=["ads.example"],
        split={"corp.example": [("192.0.2.53", 53)]},
        fake_exclude=["time.example"],
    )
    async with Host(config, zone("www.corp.example. 60 A 10.0.0.1")).running() as host:
        assert data(host.query_now(ask("nas.home"))) == ["192.0.2.9"]
        assert host.query_now(ask("ads.example")).header.rcode == RCODE.NXDOMAIN
        assert data(host.query_now(ask("www.example.org", "AAAA"))) == []
        await host.query(ask("www.corp.example"))
        await host.query(ask("www.example.org", "MX"))
        await host.query(ask("a.time.example"))
        await host.query(ask("odd name.example"))
        assert len(host.asked_directly) == 1
        assert [(str(asked.q.qname), asked.q.qtype) for asked in host.asked] == [
            ("www.example.org.", QTYPE.MX),
            ("a.time.example.", QTYPE.A),
            ("odd\\032name.example.", QTYPE.A),
        ]


SERVICE = "{name}. 60 HTTPS 1 . alpn=h2 ipv4hint=192.0.2.1 ipv6hint=2001:db8::1"


async def test_a_name_with_fake_addresses_has_no_real_ones_in_hints(ask: Ask, respond: Respond) -> None:
    async def exit(message: bytes) -> bytes:
        return respond(message, SERVICE.format(name=str(DNSRecord.parse(message).q.qname).rstrip(".")))

    config = DnsServiceConfig(
        mode="fake-ip", split={"corp.example": [("192.0.2.53", 53)]}, fake_exclude=["real.example"]
    )
    async with Host(config, exit).running() as host:
        for _ in range(2):  # the second time from the cache
            assert data(await host.query(ask("www.example", "HTTPS"))) == ["1 . alpn=h2"]
        for name in ("www.corp.example", "www.real.example"):
            (service,) = data(await host.query(ask(name, "HTTPS")))
            assert "192.0.2.1" in service


async def test_where_ipv6_leads_nowhere_no_hint_does(ask: Ask, respond: Respond) -> None:
    async def exit(message: bytes) -> bytes:
        return respond(message, SERVICE.format(name="www.example"))

    async with Host(DnsServiceConfig(ipv6=False), exit).running() as host:
        assert data(await host.query(ask("www.example", "HTTPS"))) == ["1 . alpn=h2 ipv4hint=192.0.2.1"]
        host.service.set_ipv6(True)
        assert "2001:db8" in data(await host.query(ask("www.example", "HTTPS")))[0]


async def test_more_names_than_fake_addresses_fail_until_one_is_free(ask: Ask) -> None:
    host = Host(DnsServiceConfig(mode="fake-ip", fake_max_names=2, fake_hold=60.0), never)
    host.query_now(ask("a.example"))
    host.query_now(ask("b.example"))
    assert host.query_now(ask("c.example")).header.rcode == RCODE.SERVFAIL
    assert host.counters.dropped == {"dns-no-fake-address": 1}
    host.now += 60
    assert len(data(host.query_now(ask("c.example")))) == 1
    assert host.service.address_of("a.example", 4) is None


# --- what only the named server can answer --------------------------------------------------------


def signed(query: bytes, type_: int) -> bytes:
    """The query with a record of ``type_`` at its end, of class ANY as TSIG and SIG(0) have it."""
    record = b"\x00" + struct.pack("!HHIH", type_, 255, 0, 4) + b"data"
    return query[:10] + struct.pack("!H", 1 + int.from_bytes(query[10:12], "big")) + query[12:] + record


@pytest.mark.parametrize("mode", ["forward", "fake-ip"])
async def test_what_concerns_a_server_is_for_the_named_one(ask: Ask, mode: str) -> None:
    host = Host(DnsServiceConfig(mode=mode), never)  # type: ignore[arg-type]
    replies: list[bytes] = []
    for message in (
        ask("www.example", rd=0),
        ask("example", "AXFR"),
        ask("example", "IXFR"),
        ask("example", "SOA", opcode=5),
        ask("example", "SOA", opcode=4),
        ask("version.bind", "TXT", class_=3),
        signed(ask("www.example"), 250),
        signed(ask("www.example", edns=1232), 24),
    ):
        outcome = host.service.query(message, replies.append, stream=True, names_server=True)
        assert outcome is DnsOutcome.FOR_SERVER
    assert replies == [] and not host.counters.dropped
    assert host.counters.counted["dns-queries-for-server"] == 8


async def test_our_own_resolver_answers_what_it_can(ask: Ask, zone: Zone) -> None:
    async with Host(DnsServiceConfig(), zone("www.example. 60 A 192.0.2.1")).running() as host:
        assert data(await host.query(ask("www.example", rd=0))) == ["192.0.2.1"]
        assert host.query_now(ask("example", "AXFR")).header.rcode == RCODE.REFUSED
        assert host.query_now(ask("example", "SOA", opcode=5)).header.rcode == RCODE.NOTIMP


async def test_an_ordinary_question_to_a_named_server_is_answered_here(ask: Ask) -> None:
    host = Host(DnsServiceConfig(mode="fake-ip"), never)
    replies: list[bytes] = []
    outcome = host.service.query(ask("www.example"), replies.append, stream=False, names_server=True)
    assert (outcome, data(DNSRecord.parse(replies[0]))) == (DnsOutcome.ANSWERED, ["198.18.0.42"])


async def test_names_that_stay_here_are_told_to_no_server(ask: Ask) -> None:
    split = {"corp.example": [("192.0.2.53", 53)]}
    host = Host(
        DnsServiceConfig(block=["ads.example"], hosts={"nas.home": ["192.0.2.9"]}, split=split), never
    )
    for name in ("hidden.onion", "x.ads.example", "nas.home", "localhost", "www.corp.example"):
        for opcode in (0, 5):
            replies: list[bytes] = []
            query = ask(name, rd=0, opcode=opcode)
            outcome = host.service.query(query, replies.append, stream=False, names_server=True)
            assert (outcome, len(replies)) == (DnsOutcome.ANSWERED, 1)


async def test_a_split_domain_is_asked_of_its_resolvers_also_without_recursion(ask: Ask, zone: Zone) -> None:
    config = DnsServiceConfig(split={"corp.example": [("192.0.2.53", 53)]})
    async with Host(config, zone("www.corp.example. 60 A 10.0.0.1")).running() as host:
        replies: list[bytes] = []
        host.service.query(ask("www.corp.example", rd=0), replies.append, stream=False, names_server=True)
        assert data(await host.query(ask("www.corp.example"))) == ["10.0.0.1"]
        assert data(DNSRecord.parse(replies[0])) == ["10.0.0.1"]
        assert not host.asked


# --- bad input ------------------------------------------------------------------------------------


async def test_a_malformed_query_is_answered_or_dropped_and_counted(ask: Ask) -> None:
    host = Host(DnsServiceConfig(), never)
    assert host.query_now(ask("a.example")[:-1]).header.rcode == RCODE.FORMERR
    dropped: list[bytes] = []
    for message in (b"\x00", ask("a.example", qr=1)):
        outcome = host.service.query(message, dropped.append, stream=False, names_server=True)
        assert outcome is DnsOutcome.IGNORED, "nobody shall wait for an answer"
    assert dropped == []
    assert host.counters.dropped == {"dns-bad-name": 1, "dns-too-short": 1, "dns-not-a-query": 1}


@given(st.binary(max_size=120), st.sampled_from(["forward", "fake-ip"]))
def test_no_bytes_raise_anything(message: bytes, mode: str) -> None:
    host = Host(DnsServiceConfig(mode=mode), never)  # type: ignore[arg-type]
    replies: list[bytes] = []
    for candidate in (message, b"\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + message):
        host.service.query(candidate, replies.append, stream=False)
    for reply in replies:
        assert reply[2] & 0x80
