"""Legs of a client that lead nowhere, and a name server on loopback."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest
from dnslib import QTYPE, RCODE, RR, DNSRecord
from websockets.client import ClientProtocol
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.protocol.records import MAX_RECORD
from halftunnel_vpn.transport.leg import Leg, LegListener


class Wire(asyncio.Transport):
    """A transport that leads nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()

    def write(self, data: Any) -> None:
        self.written += data

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None: ...

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None: ...

    def abort(self) -> None: ...


class FarEnd:
    """The exit's end of a leg of the client."""

    def __init__(self, listener: LegListener) -> None:
        self._protocol = ServerProtocol(state=OPEN)
        client = ClientProtocol(parse_uri("ws://exit/"), state=OPEN, max_size=MAX_RECORD)
        self.leg = Leg(client, Wire(), peer="192.0.2.1")
        self.leg.open(listener)

    def say(self, message: bytes) -> None:
        """One binary message."""
        self._protocol.send_binary(message)
        for data in self._protocol.data_to_send():
            view = self.leg.get_buffer(len(data))
            view[: len(data)] = data
            self.leg.buffer_updated(len(data))

    def hang_up(self) -> None:
        self.leg.connection_lost(None)


@pytest.fixture
def far_end() -> Callable[[LegListener], FarEnd]:
    """Makes legs by their far end."""
    return FarEnd


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def profile_text() -> str:
    """A profile that says only what must be said, and two URLs downstream."""
    return f"""\
name = "home"
[exit]
public_key = "{base64.b64encode(bytes(range(32))).decode()}"
[client]
private_key = "{base64.b64encode(bytes(range(100, 132))).decode()}"
[upstream]
urls = ["wss://a.example.org/up"]
[downstream]
urls = ["wss://b.example.net/down", "wss://c.example.com/down"]
"""


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
