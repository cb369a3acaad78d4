"""A profile, and a name server on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from dnslib import QTYPE, RCODE, RR, DNSRecord
from lab.profiles import LEAST

from halftunnel_vpn.counters import Counters


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def profile_text() -> str:
    """A profile that says only what must be said, and two URLs downstream."""
    return LEAST


class Resolver(asyncio.DatagramProtocol):
    """A name server with the addresses it is given; without any, it does not answer at all."""

    def __init__(self) -> None:
        self.addresses: dict[str, list[str]] = {}
        self.asked: list[str] = []
        self.endpoint = ("", 0)
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        self.endpoint = transport.get_extra_info("sockname")[:2]

    def datagram_received(self, data: bytes, address: Any) -> None:
        query = DNSRecord.parse(data)
        name, type_ = str(query.q.qname).rstrip("."), QTYPE[query.q.qtype]
        self.asked.append(f"{name} {type_}")
        if not self.addresses:
            return
        reply = query.reply()
        if name not in self.addresses:
            reply.header.rcode = RCODE.NXDOMAIN
        for text in self.addresses.get(name, ()):
            if (":" in text) == (type_ == "AAAA"):
                reply.add_answer(*RR.fromZone(f"{name}. 60 {type_} {text}"))
        self._transport.sendto(reply.pack(), address)


@pytest.fixture
async def name_server() -> AsyncIterator[Resolver]:
    """A name server on loopback."""
    loop = asyncio.get_running_loop()
    transport, made = await loop.create_datagram_endpoint(Resolver, local_addr=("127.0.0.1", 0))
    yield made
    transport.close()
