"""A name server on loopback, which knows the addresses that a test gives it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, cast

from dnslib import QTYPE, RCODE, RR, DNSRecord


class NameServer(asyncio.DatagramProtocol):
    """Answers from ``addresses``. It is silent about names without addresses that begin with ``silent``."""

    def __init__(self) -> None:
        self.addresses: dict[str, list[str]] = {}
        self.asked: list[tuple[str, str]] = []
        # Whether it answers nothing at all.
        self.is_silent = False
        self.endpoint = ("", 0)
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        self.endpoint = transport.get_extra_info("sockname")[:2]

    def datagram_received(self, data: bytes, address: Any) -> None:
        query = DNSRecord.parse(data)
        name, type_ = str(query.q.qname).rstrip("."), QTYPE[query.q.qtype]
        self.asked.append((name, type_))
        if self.is_silent or (name.startswith("silent") and name not in self.addresses):
            return
        reply = query.reply()
        if name not in self.addresses:
            reply.header.rcode = RCODE.NXDOMAIN
        for text in self.addresses.get(name, ()):
            if (":" in text) == (type_ == "AAAA"):
                reply.add_answer(*RR.fromZone(f"{name}. 60 {type_} {text}"))
        self._transport.sendto(reply.pack(), address)


@contextlib.asynccontextmanager
async def loopback_name_server() -> AsyncIterator[NameServer]:
    """Serve names on a free port of 127.0.0.1."""
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(NameServer, local_addr=("127.0.0.1", 0))
    try:
        yield server
    finally:
        transport.close()
