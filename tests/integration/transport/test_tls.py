"""Contexts and handshakes: files that do not fit, clients that are early, late or loud."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct

import pytest
from cryptography.hazmat.primitives import serialization

from halftunnel_vpn.errors import ConfigError, RoadError
from halftunnel_vpn.transport import dial as dial_module
from halftunnel_vpn.transport.tls import server_context


def test_a_key_that_belongs_to_another_certificate(authority, certificate):
    other = authority.issue("localhost")
    with pytest.raises(ConfigError, match="belong together"):
        server_context(certificate.certificate, other.key)


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked(certificate, tmp_path):
    key = serialization.load_pem_private_key(certificate.key.read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ConfigError, match="passphrase"):
        server_context(certificate.certificate, locked)


@pytest.fixture
def tls_client(authority):
    """TLS over a TCP connection in the hands of the test: it decides what is sent, and when."""

    class Client:
        def __init__(self):
            context = ssl.create_default_context(cadata=authority.pem)
            self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

        async def handshake(self, reader, writer, *, request):
            """The handshake; its last message and the request leave in one piece."""
            while True:
                try:
                    self._tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    writer.write(self._outgoing.read())
                    self._incoming.write(await reader.read(65_536))
            self._tls.write(request)
            writer.write(self._outgoing.read())

        async def answer(self, reader):
            while True:
                try:
                    return self._tls.read(65_536)
                except ssl.SSLWantReadError:
                    self._incoming.write(await reader.read(65_536))

    return Client()


async def test_a_request_in_one_piece_with_the_end_of_the_handshake(start_exit, tls_client):
    exit_server = await start_exit()
    reader, writer = await asyncio.open_connection("127.0.0.1", exit_server.port)
    await tls_client.handshake(reader, writer, request=b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await tls_client.answer(reader)).startswith(b"HTTP/1.1 200 OK")
    writer.close()


async def test_a_greeting_that_is_there_before_it_is_accepted(start_exit, tls_client, until):
    exit_server = await start_exit()
    reader, writer = await asyncio.open_connection("127.0.0.1", exit_server.port)
    greeting = asyncio.create_task(
        tls_client.handshake(reader, writer, request=b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
    )
    await asyncio.wait_for(greeting, 30)
    assert (await tls_client.answer(reader)).startswith(b"HTTP/1.1 404 Not Found")
    writer.close()


async def test_a_greeting_that_comes_late(start_exit, tls_client, until):
    exit_server = await start_exit()
    reader, writer = await asyncio.open_connection("127.0.0.1", exit_server.port)
    await until(lambda: exit_server.listener.admission.connections == 1)
    await asyncio.sleep(0.05)
    await tls_client.handshake(reader, writer, request=b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await tls_client.answer(reader)).startswith(b"HTTP/1.1 200 OK")
    writer.close()


@pytest.mark.parametrize("length", [1, 15_000, 500_000])
async def test_a_flood_in_place_of_a_greeting(start_exit, until, length):
    exit_server = await start_exit()
    reader, writer = await asyncio.open_connection("127.0.0.1", exit_server.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + bytes(length))
    try:
        answer = await reader.read()
    except ConnectionResetError:
        answer = b""
    assert b"HTTP" not in answer
    writer.close()
    dropped = exit_server.listener.counters.dropped
    await until(lambda: dropped["tls-failed"] + dropped["bytes-before-tls"] == 1)
    await until(lambda: exit_server.listener.admission.connections == 0)


async def test_a_visitor_that_leaves_before_its_greeting(start_exit, until):
    exit_server = await start_exit()
    for _ in range(20):
        _, writer = await asyncio.open_connection("127.0.0.1", exit_server.port)
        writer.transport.abort()
    await until(lambda: exit_server.listener.counters.counted["connections-accepted"] == 20)
    await until(lambda: exit_server.listener.admission.connections == 0)


HELD_BACK = 16 * 1024
"""Bytes from which on the kernel reports them to the loop while TLS is being put on a connection."""

EARLY = b"X-Padding: " + b"x" * 20_000 + b"\r\n\r\n"
"""More than that."""


async def test_a_request_in_the_clear_before_tls_is_never_answered(start_exit, authority, until):
    exit_server = await start_exit()
    dropped = exit_server.listener.counters.dropped
    context = ssl.create_default_context(cadata=authority.pem)

    async def visit(clear, number):
        """Send bytes in the clear, then ask inside TLS; returns what comes back inside TLS."""
        sock = socket.create_connection(("127.0.0.1", exit_server.port))
        # All of it is in the kernel before the listener gets its turn.
        sock.sendall(clear)
        sock.setblocking(False)
        await until(lambda: exit_server.listener.counters.counted["connections-accepted"] == number)
        try:
            reader, writer = await asyncio.open_connection(
                sock=sock, ssl=context, server_hostname="localhost"
            )
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            return await reader.read()
        except OSError:
            sock.close()
            return b""

    request = b"GET / HTTP/1.1\r\nHost: x\r\nX-Padding: %s\r\n\r\n"
    padding = b"x" * (HELD_BACK - len(request % b""))
    for number, clear in enumerate((request % padding, EARLY), start=1):
        assert await visit(clear, number) == b""
        assert not exit_server.listener.counters.counted["site-answers"]
        await until(lambda count=number: dropped["bytes-before-tls"] + dropped["tls-failed"] == count)
    await until(lambda: exit_server.listener.admission.connections == 0)


async def test_an_answer_in_the_clear_before_tls_is_never_believed(
    recorder, authority, certificate, monkeypatch
):
    context = certificate.context()
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        async def connect(*_, **__):
            sock = socket.create_connection(("127.0.0.1", port))
            sock.setblocking(False)
            peer, _ = server.accept()
            peer.sendall(b"HTTP/1.1 503 Forged\r\n" + EARLY)
            answering.append(asyncio.ensure_future(answer(peer)))
            return sock

        async def answer(peer):
            with contextlib.suppress(OSError):
                transport, protocol = await loop.connect_accepted_socket(asyncio.Protocol, peer)
                try:
                    await loop.start_tls(transport, protocol, context, server_side=True)
                finally:
                    transport.abort()

        answering: list[asyncio.Future[None]] = []
        monkeypatch.setattr(dial_module, "connect", connect)
        owner = recorder()
        with pytest.raises(RoadError) as raised:
            await dial_module.dial(
                "wss://localhost/a3f9", dial_module.DialOptions(ca_pem=authority.pem), owner
            )
        assert raised.value.reason in ("bytes-before-tls", "tls-failed")
        assert owner.leg is None
        await asyncio.gather(*answering)


async def test_a_connection_that_is_cut_before_tls_begins_is_one_failed_dial(
    authority, recorder, monkeypatch
):
    faults = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    server = socket.create_server(("127.0.0.1", 0))

    async def connect(*_, **__):
        sock = socket.create_connection(server.getsockname())
        sock.setblocking(False)
        peer, _ = server.accept()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()  # with RST
        return sock

    monkeypatch.setattr(dial_module, "connect", connect)
    with server:
        for _ in range(5):
            with pytest.raises(RoadError) as raised:
                await dial_module.dial(
                    "wss://localhost/a3f9", dial_module.DialOptions(ca_pem=authority.pem), recorder()
                )
            assert raised.value.reason == "tls-failed"
    assert not faults, "no traceback in the log"
