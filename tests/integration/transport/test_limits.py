"""Visitors that are slow, silent or too many."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import resource
import socket
import ssl
import sys
import time

import pytest
from websockets.asyncio.client import connect

from halftunnel_vpn.errors import HostError, RoadError
from halftunnel_vpn.transport import listen as listen_module
from halftunnel_vpn.transport.admission import ListenLimits

PROXY = (ipaddress.ip_network("127.0.0.9/32"),)


@pytest.fixture
def count(until):
    """Waits until a counter of the listener has reached a value."""

    async def wait(exit_server, reason, expected):
        dropped = exit_server.listener.counters.dropped
        await until(lambda: dropped[reason] >= expected)
        assert dropped[reason] == expected

    return wait


@pytest.fixture
def gone(until):
    """Waits until no connection holds a place any more."""
    return lambda exit_server, but=0: until(lambda: exit_server.listener.admission.connections == but)


async def test_a_silent_visitor_is_dropped(start_exit, gone):
    exit_server = await start_exit(tls=False, limits=ListenLimits(request_timeout=0.1))
    reader, writer = await asyncio.open_connection("127.0.0.1", exit_server.port)
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    assert exit_server.listener.counters.dropped["request-timeout"] == 1
    writer.close()
    await gone(exit_server)


async def test_a_visitor_that_drips_bytes_is_told_that_time_is_up(start_exit, gone):
    exit_server = await start_exit(tls=False, limits=ListenLimits(request_timeout=0.3))
    reader, writer = await asyncio.open_connection("127.0.0.1", exit_server.port)

    async def drip():
        for byte in b"GET / HTTP/1.1\r\nHost: " + b"x" * 1000:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.02)

    dripping = asyncio.create_task(drip())
    assert (await reader.read()).startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    dripping.cancel()
    await asyncio.gather(dripping, return_exceptions=True)
    writer.close()
    await gone(exit_server)


async def test_a_visitor_that_never_greets_in_tls_is_dropped_and_holds_a_place_until_then(
    start_exit, count, gone, until
):
    exit_server = await start_exit(limits=ListenLimits(request_timeout=0.2))
    reader, writer = await asyncio.open_connection("127.0.0.1", exit_server.port)
    writer.write(b"\x16\x03\x01")
    await until(lambda: exit_server.listener.admission.connections == 1)
    assert await reader.read() == b""
    await count(exit_server, "tls-failed", 1)
    writer.close()
    await gone(exit_server)


async def test_a_thousand_connections_against_a_limit_of_a_hundred(start_exit, count, until):
    exit_server = await start_exit(
        tls=False,
        limits=ListenLimits(
            max_connections=100,
            arrivals_per_peer=1000,
            arrivals=1000,
            strangers_per_peer=1000,
            strangers=1000,
        ),
    )
    connections = [await asyncio.open_connection("127.0.0.1", exit_server.port) for _ in range(1000)]
    # One place in eight is kept for peers that have joined lately.
    await count(exit_server, "connection-limit", 912)
    assert exit_server.listener.admission.connections == 88
    for _, writer in connections[88:]:
        writer.close()
    # Who was let in is served; who leaves makes room for a leg.
    reader, writer = connections[0]
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
    writer.close()
    await until(lambda: exit_server.listener.admission.connections < 88)
    leg, *_ = await exit_server.pair()
    assert leg.writable
    for _, writer in connections[1:88]:
        writer.close()


STRANGERS = """
import collections, socket, sys, time
port, rate = int(sys.argv[1]), 2000
held, number, begin = collections.deque(), 0, time.monotonic()
print("ready", flush=True)
while True:
    sock = socket.socket()
    sock.setblocking(False)
    sock.bind((f"127.0.{1 + number % 64}.1", 0))
    sock.connect_ex(("127.0.0.1", port))
    held.append(sock)
    number += 1
    if len(held) > 1000:
        held.popleft().close()
    time.sleep(max(0.0, begin + number / rate - time.monotonic()))
"""
"""2,000 connections a second from 64 addresses, which say nothing and stay for half a second."""

JOINS = 100


@pytest.mark.alone
async def test_under_a_storm_of_strangers_clients_join(start_exit):
    exit_server = await start_exit()
    storm = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STRANGERS, str(exit_server.port), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert storm.stdout is not None
        await storm.stdout.readline()
        dropped = exit_server.listener.counters.dropped
        while not dropped["arrival-rate"] + dropped["stranger-rate"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        times = []
        for _ in range(JOINS):
            begin = time.monotonic()
            leg, _, _, other = await exit_server.pair()
            other.joined()
            times.append(time.monotonic() - begin)
            leg.close()
    finally:
        storm.kill()
        await storm.wait()
    times.sort()
    # On a machine to itself each takes some 10 ms; a client that waits behind strangers takes more than 10 s.
    assert times[-2] < 4.0, times[-5:]
    assert dropped["arrival-rate"] + dropped["stranger-rate"] > JOINS


@pytest.mark.parametrize("tls", [True, False])
async def test_visitors_that_say_nothing_make_room_for_those_who_do(
    start_exit, until, gone, monkeypatch, tls
):
    monkeypatch.setattr(listen_module, "MAX_VISITORS", 20)
    exit_server = await start_exit(tls=tls)
    silent = [socket.create_connection(("127.0.0.1", exit_server.port)) for _ in range(50)]
    dropped = exit_server.listener.counters.dropped
    await until(lambda: dropped["too-many-visitors"] >= 30)
    listener = exit_server.listener
    await until(lambda: listener.admission.connections <= 20 + len(listener.legs))
    leg, *_ = await exit_server.pair()
    assert leg.writable
    for sock in silent:
        sock.close()
    await gone(exit_server, but=1)


async def test_a_peer_that_comes_too_fast_is_turned_away(start_exit, count):
    limits = ListenLimits(arrivals_per_peer=1)
    exit_server = await start_exit(tls=False, limits=limits)
    for source, expected in (("127.0.0.5", 4), ("127.0.0.6", 8)):
        for _ in range(12):
            _, writer = await asyncio.open_connection("127.0.0.1", exit_server.port, local_addr=(source, 0))
            writer.close()
        await count(exit_server, "peer-rate", expected)


async def test_who_joins_no_session_is_soon_turned_away_before_tls(start_exit, count):
    # On a clock that stands still: none of them has waited, however slow the machine is.
    exit_server = await start_exit(limits=ListenLimits(strangers_per_peer=1), clock=lambda: 100.0)
    for _ in range(3 * 8):
        leg, _, _, other = await exit_server.pair()
        other.joined()
        leg.close()
    assert not exit_server.listener.counters.dropped, "no stranger, however often it comes"
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for _ in range(8):
        _, writer = await asyncio.open_connection("127.0.0.1", exit_server.port, ssl=context)
        writer.close()
    accepted = exit_server.listener.counters.counted["connections-accepted"]
    for _ in range(4):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", exit_server.port, ssl=context)
    await count(exit_server, "stranger-rate", 4)
    assert exit_server.listener.counters.counted["connections-accepted"] == accepted
    _, writer = await asyncio.open_connection(
        "127.0.0.1", exit_server.port, ssl=context, local_addr=("127.0.0.5", 0)
    )
    writer.close()


async def test_one_peer_cannot_take_all_places(start_exit, count, gone):
    exit_server = await start_exit(tls=False, limits=ListenLimits(max_connections_per_peer=3))
    for source, expected in (("127.0.0.5", 2), ("127.0.0.6", 4)):
        connections = [
            await asyncio.open_connection("127.0.0.1", exit_server.port, local_addr=(source, 0))
            for _ in range(5)
        ]
        await count(exit_server, "peer-limit", expected)
        for _, writer in connections:
            writer.close()
    await gone(exit_server)


@pytest.fixture
def ask():
    """One request from a source address; returns the status."""

    async def send(exit_server, source, *headers):
        reader, writer = await asyncio.open_connection("127.0.0.1", exit_server.port, local_addr=(source, 0))
        lines = ["GET / HTTP/1.1", "Host: x", *headers, "", ""]
        writer.write("\r\n".join(lines).encode())
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return int(answer.split()[1])

    return send


async def test_legs_behind_a_trusted_proxy_are_charged_to_whoever_it_names(start_exit, ask):
    exit_server = await start_exit(
        tls=False, limits=ListenLimits(max_connections_per_peer=2), trusted_proxies=PROXY
    )

    def through_the_proxy():
        return connect(
            exit_server.url,
            local_addr=("127.0.0.9", 0),
            additional_headers={"X-Forwarded-For": "1.2.3.4, 198.51.100.7"},
        )

    async with through_the_proxy(), through_the_proxy():
        assert {leg.peer for leg in exit_server.listener.legs} == {"198.51.100.7"}
        assert await ask(exit_server, "127.0.0.9", "X-Forwarded-For: 198.51.100.7") == 503
        assert await ask(exit_server, "127.0.0.9", "X-Forwarded-For: 198.51.100.8") == 200
        # Nobody else is believed.
        assert await ask(exit_server, "127.0.0.8", "X-Forwarded-For: 198.51.100.7") == 200
    assert exit_server.listener.counters.dropped["peer-limit"] == 1


async def test_close_says_goodbye_to_legs_and_drops_the_rest(start_exit, recorder):
    exit_server = await start_exit()
    _, owner, _, other = await exit_server.pair()
    half_open = await asyncio.open_connection("127.0.0.1", exit_server.port)
    await exit_server.listener.close()
    assert await owner.closed() == "peer-closed-1001"
    assert await other.closed() == "closed"
    assert exit_server.listener.admission.connections == 0
    with pytest.raises(RoadError) as raised:
        await exit_server.dial(recorder())
    assert raised.value.reason == "connection-refused"
    half_open[1].close()


async def test_close_cuts_off_who_does_not_answer(start_exit, monkeypatch):
    monkeypatch.setattr(listen_module, "CLOSE_TIMEOUT", 0.1)
    exit_server = await start_exit()
    leg, owner, _, other = await exit_server.pair()
    leg._transport.pause_reading()
    await exit_server.listener.close()
    assert exit_server.listener.admission.connections == 0
    assert other.reason == "aborted"
    leg._transport.resume_reading()
    await owner.closed()


async def test_without_file_descriptors_it_waits_and_goes_on(start_exit, until):
    exit_server = await start_exit(tls=False)
    dropped = exit_server.listener.counters.dropped
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as client:
        # No number below the limit is free: the kernel takes the connection, the process cannot.
        resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, hard))
        spare = []
        try:
            with contextlib.suppress(OSError):
                while True:
                    spare.append(os.dup(client.fileno()))
            client.connect(("127.0.0.1", exit_server.port))
            await until(lambda: dropped["accept-failed"])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for descriptor in spare:
                os.close(descriptor)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(client, b"GET / HTTP/1.0\r\n\r\n")
        assert (await loop.sock_recv(client, 100)).startswith(b"HTTP/1.1 200 OK")
    assert dropped["accept-failed"] < 10


async def test_after_stop_accepting_legs_go_on(start_exit, recorder):
    exit_server = await start_exit()
    leg, _, _, other = await exit_server.pair()
    await exit_server.listener.stop_accepting()
    leg.send(b"still here")
    assert await other.received(1) == [b"still here"]
    with pytest.raises(RoadError):
        await exit_server.dial(recorder())


async def test_an_address_in_use_is_one_sentence(start_exit):
    exit_server = await start_exit()
    with pytest.raises(HostError, match="another program has it"):
        await exit_server.listener.start("127.0.0.1", exit_server.port)


async def test_an_address_that_is_not_ours_is_one_sentence(start_exit):
    exit_server = await start_exit()
    with pytest.raises(HostError, match="no such address"):
        await exit_server.listener.start("192.0.2.1", 0)


async def test_both_ip_versions_on_one_socket(start_exit, recorder):
    exit_server = await start_exit(address="::", tls=False)
    for host, peer in (("[::1]", "::1"), ("127.0.0.1", "127.0.0.1")):
        exit_server.url = f"ws://{host}:{exit_server.port}/a3f9/stream"
        _, _, other_leg, _ = await exit_server.pair()
        assert other_leg.peer == peer


async def test_clients_older_than_tls_1_2_are_refused(start_exit, authority, count):
    exit_server = await start_exit()
    context = ssl.create_default_context(cadata=authority.pem)
    with pytest.warns(DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        await asyncio.open_connection("localhost", exit_server.port, ssl=context, family=socket.AF_INET)
    await count(exit_server, "tls-failed", 1)
