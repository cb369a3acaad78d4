"""The whole way of a query: the service, the resolver at the exit, a name server on loopback."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from dnslib import RCODE, RR, DNSRecord

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.dns.dns_config import DnsServiceConfig
from halftunnel_vpn.dns.dns_service import DnsService
from halftunnel_vpn.dns.upstream import DirectResolvers, UpstreamResolver

Ask = Callable[..., bytes]
NameServer = Any
Query = Callable[..., Any]


@asynccontextmanager
async def host(server: NameServer, config: DnsServiceConfig, **more: Any) -> AsyncIterator[Query]:
    """A host whose exit asks ``server``; yields ``query(message, stream=False)``."""
    counters = Counters()
    resolver = UpstreamResolver([server.address], counters=counters, **{"timeout": 1.0, **more})
    direct = DirectResolvers(counters=counters, timeout=1.0)
    clock = asyncio.get_running_loop().time
    service = DnsService(config, resolver.query, direct, clock, counters)
    running = asyncio.create_task(service.run())
    await asyncio.sleep(0)

    async def query(message: bytes, *, stream: bool = False) -> DNSRecord:
        reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        service.query(message, reply.set_result, stream=stream)
        return DNSRecord.parse(await asyncio.wait_for(reply, 90.0))

    try:
        yield query
    finally:
        service.close()
        await running


async def test_a_chain_of_aliases_and_a_denial_arrive_and_are_remembered(
    server: NameServer, ask: Ask
) -> None:
    async with host(server, DnsServiceConfig()) as query:
        for identifier in (1, 2):
            answer = await query(ask("WWW.Example.ORG", identifier=identifier, edns=1232))
            assert (answer.header.id, str(answer.q.qname)) == (identifier, "WWW.Example.ORG.")
            assert [str(rr.rdata) for rr in answer.rr] == [
                "edge.example.net.",
                "pop.example.com.",
                "192.0.2.1",
                "192.0.2.2",
            ]
            denial = await query(ask("no.example", identifier=identifier))
            assert (denial.header.rcode, denial.header.id) == (RCODE.NXDOMAIN, identifier)
        assert len(server.queries) == 2


async def test_60_kilobytes_of_text_by_tcp(server: NameServer, ask: Ask) -> None:
    server.records = RR.fromZone("\n".join(f'long.example. 60 TXT "{i:0250}"' for i in range(230)))
    async with host(server, DnsServiceConfig()) as query:
        assert (await query(ask("long.example", "TXT", edns=4096))).header.tc == 1
        whole = await query(ask("long.example", "TXT"), stream=True)
        assert sorted(rr.rdata.data[0] for rr in whole.rr) == [b"%0250d" % i for i in range(230)]
        assert [way for way, _ in server.queries] == ["udp", "tcp"], "once each, whatever the client uses"


async def test_a_resolver_that_never_answers_is_a_failure_in_bounded_time(
    server: NameServer, ask: Ask
) -> None:
    server.by_udp = lambda message: []
    async with host(server, DnsServiceConfig(timeout=15.0), timeout=0.05, attempts=2) as query:
        began = time.monotonic()
        assert (await query(ask("plain.example"))).header.rcode == RCODE.SERVFAIL
        assert time.monotonic() - began < 10.0
    async with host(server, DnsServiceConfig(timeout=0.1), timeout=60.0) as query:
        began = time.monotonic()
        assert (await query(ask("plain.example"))).header.rcode == RCODE.SERVFAIL
        assert time.monotonic() - began < 10.0


async def test_split_domains_are_asked_of_their_own_resolver(
    server: NameServer, second: NameServer, ask: Ask
) -> None:
    second.records = RR.fromZone("www.corp.example. 60 A 10.0.0.1")
    async with host(
        server, DnsServiceConfig(mode="fake-ip", split={"corp.example": [second.address]})
    ) as query:
        assert str((await query(ask("www.corp.example"))).a.rdata) == "10.0.0.1"
        assert str((await query(ask("plain.example"))).a.rdata) == "198.18.0.1"
    assert (len(server.queries), len(second.queries)) == (0, 1)


async def test_a_thousand_questions_at_once_are_all_answered(server: NameServer, ask: Ask) -> None:
    server.records = RR.fromZone("\n".join(f"n{i}.example. 60 A 192.0.2.{i}" for i in range(200)))
    async with host(server, DnsServiceConfig(timeout=60.0), timeout=30.0) as query:
        names = [i % 200 for i in range(1000)]
        answers = await asyncio.gather(
            *(query(ask(f"n{i}.example", identifier=at)) for at, i in enumerate(names))
        )
        assert [answer.header.id for answer in answers] == list(range(1000))
        assert [str(answer.a.rdata) for answer in answers] == [f"192.0.2.{i}" for i in names]
    assert len(server.queries) == 200
