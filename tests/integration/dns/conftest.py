"""A name server on loopback, by UDP and TCP on one port, that behaves as a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest
import uvloop
from dnslib import EDNS0, QTYPE, RCODE, RR, DNSHeader, DNSRecord

ZONE = """
www.example.org. 300 CNAME edge.example.net.
edge.example.net. 60 CNAME pop.example.com.
pop.example.com. 120 A 192.0.2.1
pop.example.com. 120 A 192.0.2.2
pop.example.com. 120 AAAA 2001:db8::1
plain.example. 60 A 192.0.2.3
ring.example. 60 CNAME gnir.example.
gnir.example. 60 CNAME ring.example.
"""
SOA = "example. 900 SOA ns.example. admin.example. 1 7200 900 86400 60"
UDP_LIMIT = 1232

Datagrams = Callable[[bytes], list[bytes]]


class NameServer:
    """Answers from a zone; ``by_udp`` and ``by_tcp`` may be replaced by what answers otherwise."""

    def __init__(self) -> None:
        self.records = RR.fromZone(ZONE)
        self.queries: list[tuple[str, DNSRecord]] = []
        self.ports: list[int] = []
        self.by_udp: Datagrams = lambda message: [self.answer(message, limit=UDP_LIMIT)]
        self.by_tcp: Callable[[bytes], bytes] = self.answer
        self.address = ("", 0)

    def answer(self, message: bytes, *, limit: int = 65535, rcode: str | None = None) -> bytes:
        """As a recursive resolver would: aliases followed, a SOA record for nothing, TC if too long."""
        query = DNSRecord.parse(message)
        reply = DNSRecord(DNSHeader(id=query.header.id, qr=1, rd=1, ra=1), query.questions)
        name, known = query.q.qname, {str(rr.rname).lower() for rr in self.records}
        for _ in range(3):
            found = [rr for rr in self.records if rr.rname == name]
            reply.add_answer(*[rr for rr in found if rr.rtype in (query.q.qtype, QTYPE.CNAME)])
            alias = next((rr for rr in found if rr.rtype == QTYPE.CNAME), None)
            if alias is None:
                break
            name = alias.rdata.label
        if rcode is not None or str(name).lower() not in known:
            reply.header.rcode = getattr(RCODE, rcode or "NXDOMAIN")
        if not reply.rr:
            reply.add_auth(*RR.fromZone(SOA))
        if query.ar:
            reply.add_ar(EDNS0(udp_len=UDP_LIMIT))
        packed = bytes(reply.pack())
        if len(packed) <= limit:
            return packed
        reply.header.tc = 1
        return bytes(DNSRecord(reply.header, reply.questions).pack())

    def datagrams(self) -> asyncio.DatagramProtocol:
        """What serves UDP."""
        return Datagram(self)

    async def stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one TCP connection."""
        try:
            while True:
                length = int.from_bytes(await reader.readexactly(2), "big")
                message = await reader.readexactly(length)
                self.queries.append(("tcp", DNSRecord.parse(message)))
                answer = self.by_tcp(message)
                # In pieces, as the network would have it.
                whole = len(answer).to_bytes(2, "big") + answer
                for start in range(0, len(whole), 20_000):
                    writer.write(whole[start : start + 20_000])
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


class Datagram(asyncio.DatagramProtocol):
    """The UDP side of a name server."""

    def __init__(self, server: NameServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        self._server.queries.append(("udp", DNSRecord.parse(data)))
        self._server.ports.append(address[1])
        for answer in self._server.by_udp(data):
            self._transport.sendto(answer, address)


@asynccontextmanager
async def serving(host: str = "127.0.0.1") -> AsyncIterator[NameServer]:
    server = NameServer()
    loop = asyncio.get_running_loop()
    tcp = await asyncio.start_server(server.stream, host, 0)
    port = tcp.sockets[0].getsockname()[1]
    transport, _ = await loop.create_datagram_endpoint(server.datagrams, local_addr=(host, port))
    server.address = (host, port)
    try:
        yield server
    finally:
        transport.close()
        tcp.close()
        await tcp.wait_closed()
        # Let the connections that were cut see it.
        await asyncio.sleep(0)


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every asynchronous test here runs under both event loops that the product may have."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def server() -> AsyncIterator[NameServer]:
    async with serving() as server:
        yield server


@pytest.fixture
async def second() -> AsyncIterator[NameServer]:
    async with serving() as server:
        yield server


@pytest.fixture
async def server_v6() -> AsyncIterator[NameServer]:
    async with serving("::1") as server:
        yield server


Ask = Callable[..., bytes]


@pytest.fixture
def ask() -> Ask:
    def make(name: str, type_: str = "A", *, identifier: int = 7, edns: int | None = None) -> bytes:
        record = DNSRecord.question(name, type_)
        record.header.id = identifier
        if edns is not None:
            record.add_ar(EDNS0(udp_len=edns))
        return bytes(record.pack())

    return make
