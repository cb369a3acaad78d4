"""UDP ASSOCIATE over real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from lab.in_memory import poll

HELLO = b"\x05\x01\x00"
ASSOCIATE = b"\x05\x03\x00\x01" + bytes(6)


class Echo(asyncio.DatagramProtocol):
    """Sends every datagram back."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, address: Any) -> None:
        self.transport.sendto(data, address)


@pytest.fixture
async def udp_echo() -> AsyncIterator[Echo]:
    transport, made = await asyncio.get_running_loop().create_datagram_endpoint(
        Echo, local_addr=("127.0.0.1", 0)
    )
    yield made
    transport.close()


class Program:
    """A program with an association."""

    @classmethod
    async def associate(cls, proxy: Any) -> Program:
        self = cls()
        self.reader, self.writer = await proxy.connect()
        self.writer.write(HELLO + ASSOCIATE)
        answer = await self.reader.readexactly(12)
        assert answer[2:6] == b"\x05\x00\x00\x01"
        self.relay = socket.inet_ntoa(answer[6:10]), int.from_bytes(answer[10:], "big")
        self.sock = self.socket()
        return self

    def socket(self) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.connect(self.relay)
        return sock

    async def receive(self) -> bytes:
        async with asyncio.timeout(30):
            return await asyncio.get_running_loop().sock_recv(self.sock, 70_000)

    def close(self) -> None:
        self.sock.close()
        self.writer.close()


def header(port: int, host: bytes = b"\x01\x7f\x00\x00\x01", fragment: int = 0) -> bytes:
    return bytes((0, 0, fragment)) + host + port.to_bytes(2, "big")


async def test_datagrams_go_there_and_back_by_address_and_by_name(proxied, udp_echo, resolver):
    resolver.addresses = {"echo.test": ["127.0.0.1"]}
    proxy = proxied(exit_={"resolvers": [resolver.endpoint]})
    program = await Program.associate(proxy)
    name = b"\x03\x09echo.test"
    for host in (b"\x01\x7f\x00\x00\x01", name):
        for payload in (b"x", bytes(9000)):
            program.sock.send(header(udp_echo.port, host) + payload)
            assert await program.receive() == header(udp_echo.port, host) + payload
    program.close()
    await proxy.idle()


async def test_many_of_one_size_come_back_as_many(proxied, udp_echo):
    proxy = proxied()
    program = await Program.associate(proxy)
    for number in range(100):
        program.sock.send(header(udp_echo.port) + bytes((number,)) * 500)
    received = {(await program.receive())[10:] for _ in range(90)}  # the kernel may drop some
    assert received <= {bytes((number,)) * 500 for number in range(100)} and len(received) == 90
    program.close()
    await proxy.idle()


async def test_fragments_strangers_and_nonsense_are_dropped_and_counted(proxied, udp_echo):
    proxy = proxied()
    program = await Program.associate(proxy)
    program.sock.send(header(udp_echo.port, fragment=1) + b"fragment")
    program.sock.send(b"short")
    program.sock.send(header(udp_echo.port) + b"good")
    assert (await program.receive())[10:] == b"good"
    with program.socket() as stranger:
        stranger.send(header(udp_echo.port) + b"not mine")
        await poll(lambda: proxy.counters.dropped["proxy-udp-stranger"] == 1)
    assert proxy.counters.dropped["proxy-udp-malformed"] == 2
    program.close()
    await proxy.idle()


async def test_the_association_outlives_a_session(proxied, udp_echo):
    proxy = proxied()
    program = await Program.associate(proxy)
    session, proxy.opener.session = proxy.opener.session, None
    program.sock.send(header(udp_echo.port) + b"lost")
    await poll(lambda: proxy.counters.dropped["proxy-udp-no-session"] == 1)
    proxy.opener.session = session
    program.sock.send(header(udp_echo.port) + b"again")
    assert (await program.receive())[10:] == b"again"
    program.close()
    await proxy.idle()
