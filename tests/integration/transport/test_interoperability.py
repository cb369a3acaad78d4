"""Legs against websockets' own client and server, and against raw frames: an independent other end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import struct

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK

from halftunnel_vpn.transport.dial import DialOptions, dial


@pytest.fixture
async def visit(exit_server):
    """Opens a WebSocket to the listener with websockets' client; returns it and the leg's owner."""
    context = None
    if exit_server.options.ca_pem is not None:
        context = ssl.create_default_context(cadata=exit_server.options.ca_pem)
    opened = []

    async def open_one(**options):
        peer = await connect(exit_server.url, ssl=context, max_size=None, **options)
        opened.append(peer)
        return peer, await exit_server.arrived()

    yield open_one
    for peer in opened:
        await peer.close()


@pytest.fixture
async def independent_server(certificate):
    """A server of websockets. It has a URL and returns each connection to the test."""
    connections = asyncio.Queue()

    async def take(connection):
        await connections.put(connection)
        await connection.wait_closed()

    context = certificate.context()
    async with serve(take, "localhost", 0, ssl=context, max_size=None, compression=None) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"wss://localhost:{port}/any", connections


async def test_a_server_that_takes_the_compression_is_asked_again_without(certificate, authority, recorder):
    """Something in front of the exit that ends the WebSocket itself: no exit takes it."""
    seen = asyncio.Queue()

    async def take(connection):
        seen.put_nowait(connection.request.headers.get("Sec-WebSocket-Extensions"))
        if connection.protocol.extensions:
            await connection.wait_closed()
        else:
            await connection.send(b"plain")

    async with serve(take, "localhost", 0, ssl=certificate.context()) as server:
        port = server.sockets[0].getsockname()[1]
        owner = recorder()
        leg = await dial(f"wss://localhost:{port}/any", DialOptions(ca_pem=authority.pem), owner)
        assert await owner.received(1) == [b"plain"]
        assert await seen.get() == "permessage-deflate; client_max_window_bits" and await seen.get() is None
        leg.abort()


@pytest.fixture
async def dialled(independent_server, authority, recorder):
    """A leg of ours to websockets' server: the leg, its owner, the other end."""
    url, connections = independent_server
    owner = recorder()
    leg = await dial(url, DialOptions(ca_pem=authority.pem), owner)
    yield leg, owner, await connections.get()
    leg.abort()
    await owner.closed()


# --- websockets' client to our listener ---------------------------------------------------------------


async def test_a_client_exchanges_messages(visit, size):
    peer, owner = await visit()
    message = os.urandom(size)
    await peer.send(message)
    assert await owner.received(1) == [message]
    (await owner.opened()).send(message)
    assert await peer.recv() == message


async def test_compression_is_declined(visit):
    peer, _ = await visit(compression="deflate")
    assert peer.protocol.extensions == []


async def test_a_clients_text_frame_closes_the_leg(visit):
    peer, owner = await visit()
    await peer.send(b"fine")
    await peer.send("text")
    assert await owner.closed() == "text-frame"
    with pytest.raises(ConnectionClosedError):
        await peer.recv()
    assert (peer.protocol.close_code, owner.records) == (1003, [b"fine"])


async def test_an_oversized_message_closes_the_leg(visit):
    peer, owner = await visit()
    await peer.send(bytes(65_537))
    assert await owner.closed() == "message-too-big"
    with pytest.raises(ConnectionClosedError):
        await peer.recv()
    assert peer.protocol.close_code == 1009


async def test_fragments_make_one_record(visit):
    peer, owner = await visit()
    await peer.send([b"frag", b"", b"mented"])
    await peer.send(b"whole")
    await peer.send([bytes(40_000), bytes(25_536)])
    assert await owner.received(3) == [b"fragmented", b"whole", bytes(65_536)]
    assert owner.leg.bytes_in == 10 + 5 + 65_536


async def test_fragments_beyond_the_longest_record_close_the_leg(visit):
    peer, owner = await visit()
    with pytest.raises(ConnectionClosedError):
        await peer.send([bytes(30_000)] * 10)
        await peer.recv()
    assert await owner.closed() == "message-too-big"
    assert (peer.protocol.close_code, owner.records) == (1009, [])


async def test_fragmented_text_closes_the_leg_at_once(visit):
    peer, owner = await visit()
    with pytest.raises(ConnectionClosedError):
        await peer.send(["a", "b"])
        await peer.recv()
    assert await owner.closed() == "text-frame"


async def test_pings_are_answered_between_records(visit):
    peer, owner = await visit()
    for number in range(5):
        answered = await peer.ping(b"%d" % number)
        await peer.send(b"record %d" % number)
        await asyncio.wait_for(answered, 30)
    assert len(await owner.received(5)) == 5


async def test_a_ping_within_a_fragmented_message_is_answered(visit):
    peer, owner = await visit()
    finish = asyncio.Event()

    async def pieces():
        yield b"first "
        await finish.wait()
        yield b"second"

    sending = asyncio.create_task(peer.send(pieces()))
    await asyncio.wait_for(await peer.ping(), 30)
    assert owner.records == []
    finish.set()
    await sending
    assert await owner.received(1) == [b"first second"]


async def test_a_client_that_closes_is_reported_with_its_code(visit):
    for code in (1000, 1001, 4321):
        peer, owner = await visit()
        await peer.close(code)
        assert await owner.closed() == f"peer-closed-{code}"
        assert peer.protocol.close_code == code


async def test_a_listener_that_closes_is_understood(visit):
    peer, owner = await visit()
    (await owner.opened()).close(1012, "restart")
    with pytest.raises(ConnectionClosedError):
        await peer.recv()
    assert (peer.protocol.close_code, peer.protocol.close_reason) == (1012, "restart")
    assert await owner.closed() == "closed"


async def test_a_client_that_vanishes_is_reported(visit):
    peer, owner = await visit()
    peer.transport.abort()
    assert await owner.closed() == "connection-lost"


# --- raw frames to our listener -------------------------------------------------------------------------

MASK = b"\x01\x02\x03\x04"


def frame(first, payload=b"", *, masked=True, length=None):
    count = len(payload) if length is None else length
    bit = 0x80 if masked else 0
    if count < 126:
        header = struct.pack("!BB", first, bit | count)
    elif count < 65_536:
        header = struct.pack("!BBH", first, bit | 126, count)
    else:
        header = struct.pack("!BBQ", first, bit | 127, count)
    if not masked:
        return header + payload
    return header + MASK + bytes(byte ^ MASK[place % 4] for place, byte in enumerate(payload))


@pytest.mark.parametrize(
    ("name", "data", "reason", "code"),
    [
        ("reserved bit", frame(0xC2, b"x"), "websocket-protocol-error", 1002),
        ("unknown opcode", frame(0x83, b"x"), "websocket-protocol-error", 1002),
        ("not masked", frame(0x82, b"x", masked=False), "websocket-protocol-error", 1002),
        ("not masked, cut off", frame(0x82, b"", masked=False, length=500), "websocket-protocol-error", 1002),
        ("continuation of nothing", frame(0x80, b"x"), "websocket-protocol-error", 1002),
        ("binary within fragments", frame(0x02, b"x") + frame(0x82, b"y"), "websocket-protocol-error", 1002),
        ("long ping", frame(0x89, bytes(126)), "websocket-protocol-error", 1002),
        ("fragmented ping", frame(0x09, b"x"), "websocket-protocol-error", 1002),
        ("close of one byte", frame(0x88, b"x"), "websocket-protocol-error", 1002),
        ("close with a code of no meaning", frame(0x88, b"\x00\x01"), "websocket-protocol-error", 1002),
        ("close with broken UTF-8", frame(0x88, b"\x03\xe8\xff"), "websocket-protocol-error", 1007),
        ("too long by its header alone", frame(0x82, b"", length=1 << 40), "message-too-big", 1009),
        ("text", frame(0x81, b"x"), "text-frame", 1003),
        ("close without a code", frame(0x88), "peer-closed-1005", None),
    ],
)
async def test_bad_frames_close_the_leg_with_the_right_code(
    start_exit, secret_path, name, data, reason, code
):
    exit_server = await start_exit(tls=False)
    reader, writer = await asyncio.open_connection("127.0.0.1", exit_server.port)
    handshake = (
        f"GET {secret_path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    # In one piece with the handshake: what follows it must not be lost.
    writer.write(handshake.encode() + frame(0x82, b"good") + data)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in head
    answer = await reader.read()
    owner = await exit_server.arrived()
    assert await owner.closed() == reason, name
    assert owner.records == [b"good"]
    assert answer[0] == 0x88
    if code is not None:
        assert struct.unpack_from("!H", answer, 2) == (code,)
    writer.close()


@pytest.mark.parametrize("first", [0x89, 0x8A, 0x00], ids=["pings", "pongs", "fragments"])
async def test_a_flood_of_empty_frames_closes_the_leg(start_exit, first):
    exit_server = await start_exit(tls=False)
    peer = await connect(exit_server.url, ping_interval=None)
    owner = await exit_server.arrived()
    await peer.send(b"before")
    if first == 0x00:
        peer.transport.write(frame(0x02))
    peer.transport.write(frame(first) * 20_000)
    assert await owner.closed() == "side-frame-flood"
    assert owner.records == [b"before"]
    with contextlib.suppress(ConnectionClosed):
        await peer.recv()


async def test_records_that_a_proxy_has_cut_up_are_no_flood(visit):
    peer, owner = await visit(ping_interval=None)
    for number in range(50):
        await peer.send([bytes([number]) * 512] * 128)
    assert await owner.received(50) == [bytes([number]) * 65_536 for number in range(50)]


async def test_pongs_do_not_pile_up_for_a_peer_that_does_not_read(start_exit, secret_path):
    exit_server = await start_exit(tls=False)
    peer = await connect(exit_server.url, max_size=None, ping_interval=None)
    owner = await exit_server.arrived()
    leg = await owner.opened()
    peer.transport.pause_reading()
    sent = 0
    while leg.writable:
        leg.send(bytes(65_536))
        sent += 1
        await asyncio.sleep(0)
    waiting = leg._transport.get_write_buffer_size()
    peer.transport.writelines([frame(0x89, bytes(125))] * 500)
    last = await peer.ping(b"the last")
    await peer.send(b"the pings were read")
    assert await owner.received(1) == [b"the pings were read"]
    assert leg._transport.get_write_buffer_size() <= waiting
    # Once it reads again, one pong answers them all (RFC 6455 section 5.5.3).
    peer.transport.resume_reading()
    for _ in range(sent):
        await peer.recv()
    await asyncio.wait_for(last, 30)
    await peer.close()
    await owner.closed()


# --- our dialler to websockets' server --------------------------------------------------------------------


async def test_a_server_exchanges_messages(dialled, size):
    leg, owner, peer = dialled
    message = os.urandom(size)
    leg.send(message)
    assert await peer.recv() == message
    await peer.send(message)
    assert await owner.received(1) == [message]


async def test_a_servers_text_frame_closes_the_leg(dialled):
    _, owner, peer = dialled
    await peer.send("text")
    assert await owner.closed() == "text-frame"
    with pytest.raises(ConnectionClosedError):
        await peer.recv()
    assert peer.protocol.close_code == 1003


async def test_a_servers_oversized_message_closes_the_leg(dialled):
    _, owner, peer = dialled
    await peer.send(bytes(200_000))
    assert await owner.closed() == "message-too-big"


async def test_a_servers_fragments_and_pings_are_understood(dialled):
    _, owner, peer = dialled
    await peer.send([b"a" * 100, b"b" * 70])
    await asyncio.wait_for(await peer.ping(), 30)
    assert await owner.received(1) == [b"a" * 100 + b"b" * 70]


async def test_a_server_that_closes_is_reported_with_its_code(dialled):
    _, owner, peer = dialled
    await peer.close(1001)
    assert await owner.closed() == "peer-closed-1001"


async def test_a_leg_that_closes_is_understood_by_the_server(dialled):
    leg, owner, peer = dialled
    leg.close()
    with pytest.raises(ConnectionClosedOK):
        await peer.recv()
    assert await owner.closed() == "closed"
