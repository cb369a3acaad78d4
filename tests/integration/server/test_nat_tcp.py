"""Byte streams at the exit: real sockets behind a session in memory."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import os
import socket
import struct

import pytest

from halftunnel_vpn.protocol.stream_messages import ResetCode
from halftunnel_vpn.protocol.wire import PacketType, encode_header
from halftunnel_vpn.server.dialing import DialLimits
from halftunnel_vpn.server.egress import EgressPolicy
from halftunnel_vpn.transport.relay import tcp_relay

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

HERE, SIX = (ipaddress.ip_address(text).packed for text in ("127.0.0.1", "::1"))


class Peer:
    """The destination's end of a connection."""

    def __init__(self, sock):
        self.sock = sock
        sock.setblocking(False)
        self._loop = asyncio.get_running_loop()

    async def receive(self, count=65536):
        async with asyncio.timeout(30):
            return await self._loop.sock_recv(self.sock, count)

    async def receive_all(self):
        received = bytearray()
        while data := await self.receive(1 << 20):
            received += data
        return bytes(received)

    async def send(self, data):
        async with asyncio.timeout(30):
            await self._loop.sock_sendall(self.sock, data)

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


@pytest.fixture
def connect(in_memory, listening):
    """A stream through the exit to a peer; returns the client's user and the peer."""
    peers = []

    async def make(address="127.0.0.1", tunnel=None):
        tunnel = tunnel or in_memory()
        listener = listening(address)
        user = tunnel.open(ipaddress.ip_address(address).packed, listener.getsockname()[1])
        await user.heard("opened")
        peers.append(Peer(listener.accept()[0]))
        peers[-1].tunnel = tunnel
        return user, peers[-1]

    yield make
    for peer in peers:
        peer.sock.close()


async def accept(listener):
    listener.setblocking(False)
    async with asyncio.timeout(30):
        sock, _ = await asyncio.get_running_loop().sock_accept(listener)
    return sock


async def send_all(user, data):
    view = memoryview(data)
    while view:
        await user.until(lambda: user.stream.room)
        room = min(user.stream.room, 65_000)
        user.stream.send(view[:room])
        view = view[room:]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_bytes_go_both_ways_and_each_half_closes_alone(connect, address):
    user, peer = await connect(address)
    user.stream.send(b"GET /")
    user.stream.finish()
    assert await peer.receive_all() == b"GET /"
    await peer.send(b"200")
    await user.until(lambda: user.received == b"200")
    assert "finished" not in user.events
    peer.sock.shutdown(socket.SHUT_WR)
    await user.heard("finished")
    await peer.tunnel.idle()


async def test_the_last_bytes_and_the_fin_behind_them_come_together(connect):
    user, peer = await connect()
    told = []
    take = user.data_received

    def look(data, now):
        told.append((bytes(data), user.stream.fin_follows))
        take(data, now)

    user.data_received = look
    await peer.send(b"first")
    await user.until(lambda: told)
    peer.sock.send(b"last")
    peer.sock.shutdown(socket.SHUT_WR)
    await user.heard("finished")
    assert told == [(b"first", False), (b"last", True)]
    user.stream.finish()
    await peer.tunnel.idle()


async def test_what_follows_an_urgent_byte_arrives_at_once(connect):
    """A read ends before that byte, and nothing comes later that would have the rest reported."""
    user, peer = await connect()
    peer.sock.send(b"abc")
    peer.sock.send(b"!", socket.MSG_OOB)
    peer.sock.send(b"def")
    await user.until(lambda: user.received == b"abc!def")
    user.stream.reset(ResetCode.SHUTDOWN)
    await peer.tunnel.idle()


async def test_the_destination_may_finish_first(connect):
    user, peer = await connect()
    await peer.send(b"banner")
    peer.sock.shutdown(socket.SHUT_WR)
    await user.heard("finished")
    assert user.received == b"banner"
    user.stream.send(b"thanks")
    user.stream.finish()
    assert await peer.receive_all() == b"thanks"
    await peer.tunnel.idle()


async def test_many_megabytes_at_once_both_ways(connect):
    user, peer = await connect()
    up, down = os.urandom(6_000_000), os.urandom(6_000_000)

    async def sending():
        await send_all(user, up)
        user.stream.finish()

    async def serving():
        await peer.send(down)
        peer.sock.shutdown(socket.SHUT_WR)

    received, *_ = await asyncio.gather(peer.receive_all(), sending(), serving())
    await user.heard("finished")
    assert hashlib.sha256(received).digest() == hashlib.sha256(up).digest()
    assert hashlib.sha256(user.received).digest() == hashlib.sha256(down).digest()
    await peer.tunnel.idle()


async def test_a_destination_that_does_not_read_stops_the_client_and_then_gets_all(connect):
    user, peer = await connect()
    sent = bytearray()
    quiet = 0
    while quiet < 20:
        if room := min(user.stream.room, 65_000):
            sent += os.urandom(room)
            user.stream.send(bytes(sent[-room:]))
            quiet = 0
        else:
            quiet += 1
            await asyncio.sleep(0.01)
    held = user.stream.sending.credit
    assert len(sent) < 40_000_000
    user.stream.finish()
    received = await peer.receive_all()
    assert received == bytes(sent) and len(sent) >= held


async def test_single_bytes_that_wait_come_behind_what_waits_and_cost_little(connect, until):
    user, peer = await connect()
    stalled = asyncio.ensure_future(send_all(user, bytes(40_000_000)))
    handler = next(iter(peer.tunnel.exit.streams.values())).handler
    sending = user.stream.sending
    await until(lambda: handler._backlog and not user.stream.room and sending.finished)
    stalled.cancel()
    sent = sending.accepted
    pieces, tail = len(handler._backlog), os.urandom(50_000)
    for place in range(len(tail)):
        handler.data_received(memoryview(tail)[place : place + 1], peer.tunnel.driver.clock())
    assert len(handler._backlog) <= pieces + 2
    user.stream.finish()
    received = await peer.receive_all()
    assert received == bytes(sent) + tail


async def test_a_client_that_does_not_read_stops_the_destination(connect, until):
    user, peer = await connect()
    user.reads = False
    pushing = asyncio.ensure_future(peer.send(bytes(30_000_000)))
    await until(lambda: len(user.received) == user.stream.receiving.window.granted)
    assert not pushing.done()
    user.stream.reset(ResetCode.NORMAL)
    with pytest.raises(OSError):
        await pushing


@pytest.mark.parametrize("when", ["idle", "with data under way"])
async def test_a_client_that_resets_is_a_connection_that_was_reset(connect, when):
    user, peer = await connect()
    if when != "idle":
        await peer.send(bytes(100_000))
    user.stream.reset(ResetCode.CONNECTION_RESET)
    with pytest.raises(ConnectionResetError):
        while await peer.receive():
            pass
    await peer.tunnel.idle()


async def test_a_destination_that_resets_is_told(connect):
    user, peer = await connect()
    peer.reset()
    await user.heard("aborted CONNECTION_RESET")
    await peer.tunnel.idle()


async def test_a_destination_that_resets_while_bytes_wait_for_it(connect):
    user, peer = await connect()
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sending = asyncio.ensure_future(send_all(user, bytes(20_000_000)))
    await asyncio.sleep(0.2)
    peer.reset()
    await user.heard("aborted CONNECTION_RESET")
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    await peer.tunnel.idle()


@pytest.mark.parametrize("last", ["client", "destination"])
async def test_a_destination_that_takes_nothing_more_holds_no_place_for_ever(
    connect, counters, until, monkeypatch, last
):
    monkeypatch.setattr(tcp_relay, "STALLED_FOR", 0.3)
    user, peer = await connect()
    sending = asyncio.ensure_future(send_all(user, bytes(40_000_000)))
    await until(lambda: not user.stream.room and user.stream.sending.finished)
    sending.cancel()
    for end in sorted(("client", "destination"), key=lambda end: end == last):
        if end == "client":
            user.stream.finish()
        else:
            peer.sock.shutdown(socket.SHUT_WR)
        await until(lambda: user.stream.sending.finished)
    await user.heard("finished")
    await until(lambda: not peer.tunnel.exit.streams)
    await peer.tunnel.idle()
    assert counters.dropped == {"destination-stalled": 1}


async def test_a_destination_that_takes_a_little_is_waited_for_again_and_gets_all(connect, counters, until):
    user, peer = await connect()
    relay = next(iter(peer.tunnel.exit.streams.values())).handler
    sending = asyncio.ensure_future(send_all(user, bytes(40_000_000)))
    await until(lambda: not user.stream.room and user.stream.sending.finished)
    sending.cancel()
    sent = user.stream.sending.accepted
    user.stream.finish()
    peer.sock.shutdown(socket.SHUT_WR)
    await until(lambda: relay._patience is not None)
    deadlines, received = {relay._patience._bucket}, 0
    while data := await peer.receive(1 << 20):
        received += len(data)
        await asyncio.sleep(0.01)
        if relay._patience is not None:
            deadlines.add(relay._patience._bucket)
    assert received == sent and len(deadlines) > 1
    await peer.tunnel.idle()
    assert not counters.dropped


async def test_a_client_that_breaks_the_rules_loses_the_connection(connect):
    user, peer = await connect()
    tunnel = peer.tunnel
    forged = encode_header(PacketType.ACK, bytes(16), 1, 0, 999, 8) + bytes(8)
    upstream = tunnel.links[1]
    tunnel.exit.train_received(upstream.state, memoryview(forged), tunnel.driver.clock())
    with pytest.raises(ConnectionResetError):
        await peer.receive()
    await user.heard("aborted PROTOCOL_ERROR")
    await tunnel.idle()


async def test_the_end_of_a_session_resets_its_connections(connect):
    _, peer = await connect()
    peer.tunnel.exit.close(ResetCode.DENIED, peer.tunnel.driver.clock())
    with pytest.raises(ConnectionResetError):
        await peer.receive()
    assert peer.tunnel.nat.total == 0


# --- before the connection -------------------------------------------------------------------------


async def test_what_the_client_sends_with_its_open_arrives_first(in_memory, listening):
    tunnel, listener = in_memory(), listening()
    user = tunnel.open(HERE, listener.getsockname()[1])
    user.stream.send(b"early ")
    user.stream.send(b"bird")
    user.stream.finish()
    await user.heard("opened")
    peer = Peer(listener.accept()[0])
    assert await peer.receive_all() == b"early bird"
    peer.sock.close()
    await tunnel.idle()


async def test_single_bytes_that_come_early_are_few_pieces(in_memory, listening, until):
    tunnel, data = in_memory(), os.urandom(100_000)
    tunnel.open(HERE, listening(full=True).getsockname()[1])
    await until(lambda: tunnel.exit.streams)
    opening = tunnel.exit.streams[1].handler
    for place in range(len(data)):
        opening.data_received(memoryview(data)[place : place + 1], tunnel.driver.clock())
    assert len(opening._early) == 2 and b"".join(opening._early) == data


async def test_early_bytes_for_a_destination_that_resets_at_once(in_memory, listening):
    tunnel, listener = in_memory(), listening()
    user = tunnel.open(HERE, listener.getsockname()[1])
    for _ in range(5):
        user.stream.send(b"x" * 3000)
    user.stream.finish()
    Peer(await accept(listener)).reset()
    await user.until(lambda: any(event.startswith("aborted") for event in user.events))
    await tunnel.idle()


async def test_the_client_is_told_the_address_of_the_socket(in_memory, listening):
    tunnel, listener = in_memory(), listening()
    seen: list[bytes] = []
    for link in tunnel.links:
        if link.owner is tunnel.exit:
            link.overhear = seen.append
    user = tunnel.open(HERE, listener.getsockname()[1])
    await user.heard("opened")
    sock, address = listener.accept()
    reply = address[1].to_bytes(2, "big") + b"\x04" + HERE
    assert any(reply in train for train in seen)
    sock.close()


@pytest.fixture
def refused(in_memory):
    """Opens a stream that is refused; the reason must be ``code`` and the place be given back."""

    async def check(host, port, code, *, tunnel=None, **changes):
        tunnel = tunnel or in_memory(**changes)
        user = tunnel.open(host, port)
        await user.heard(f"refused {code}")
        await tunnel.idle()
        return tunnel

    return check


async def test_a_closed_port(refused):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        await refused(HERE, sock.getsockname()[1], "REFUSED")


async def test_a_destination_that_never_answers(refused, listening):
    await refused(HERE, listening(full=True).getsockname()[1], "TIMED_OUT", dials=DialLimits(timeout=0.2))


@pytest.mark.parametrize("host", [HERE, SIX, b"\0" * 10 + b"\xff\xff" + HERE, b"\xa9\xfe\xa9\xfe", bytes(16)])
async def test_a_destination_that_the_policy_denies(refused, counters, listening, host):
    listener = listening()
    listener.setblocking(False)
    await refused(host, listener.getsockname()[1], "DENIED", policy=EgressPolicy())
    assert counters.dropped == {"egress-denied": 1} and not counters.counted["dials"]
    with pytest.raises(BlockingIOError):
        listener.accept()


async def test_a_client_that_gives_up_stops_the_dial(in_memory, listening, counters, until):
    tunnel = in_memory()
    user = tunnel.open(HERE, listening(full=True).getsockname()[1])
    await until(lambda: counters.counted["dials"])
    user.stream.reset(ResetCode.TIMED_OUT)
    await tunnel.idle()
    assert not tunnel.nat.dialer._total


async def test_streams_of_a_client_have_a_bound(in_memory, listening, counters, until):
    tunnel, listener = in_memory(streams_per_client=2), listening()
    port = listener.getsockname()[1]
    users = [tunnel.open(HERE, port) for _ in range(3)]
    await users[2].heard("refused LIMIT")
    await users[0].heard("opened")
    assert counters.dropped == {"stream-limit": 1}
    users[0].stream.reset(ResetCode.NORMAL)
    await until(lambda: tunnel.nat.total == 1)
    again = tunnel.open(HERE, port)
    await again.heard("opened")


async def test_streams_of_all_clients_have_a_bound(in_memory, listening, counters):
    tunnel, listener = in_memory(max_streams=3), listening()
    assert [tunnel.nat.take(name) for name in ("phone", "tablet")] == [True, True]
    users = [tunnel.open(HERE, listener.getsockname()[1]) for _ in range(2)]
    await users[1].heard("refused LIMIT")
    await users[0].heard("opened")
    for name in ("phone", "tablet"):
        tunnel.nat.give_back(name)
