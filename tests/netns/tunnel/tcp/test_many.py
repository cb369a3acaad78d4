"""Very many connections: all at once, and one after the other. Nothing is left of them."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from lab.topology import CLIENT

pytestmark = pytest.mark.root

CROWD = 2000
IN_A_ROW = 5000
MEGABYTE = 1_000_000

ANSWER_LENGTH = 32 * 100
MEMORY_PER_CONNECTION = 50_000
"""Bytes that a connection may cost each process while it is open."""


def answer_to(question: bytes) -> bytes:
    return hashlib.sha256(question).digest() * 100


@pytest.fixture
def crowd(rig, ends):
    """Opens so many connections, has all of them ask at once, returns when all are answered and closed."""

    serving = []

    async def answer(reader, writer):
        serving.append(asyncio.current_task())
        question = await reader.readexactly(100)
        writer.write(answer_to(question))
        if question[0] % 2:  # every other connection is closed by the target first
            writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()

    async def ask(number, sock, address, everybody_is_here, meanwhile):
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, address)
        reader, writer = await asyncio.open_connection(sock=sock)
        if await everybody_is_here.wait() == 0:
            meanwhile()
        await everybody_is_here.wait()
        question = number.to_bytes(2, "little") * 50
        writer.write(question)
        if question[0] % 2:
            answered = await reader.read()
        else:
            answered = await reader.readexactly(ANSWER_LENGTH)
            writer.write_eof()
            assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        return answered == answer_to(question)

    async def gather(size, meanwhile=lambda: None):
        listener = ends.listen()
        server = await asyncio.start_server(answer, sock=listener, backlog=4096)
        everybody_is_here = asyncio.Barrier(size)
        with rig.lab.inside(CLIENT):
            sockets = [socket.socket() for _ in range(size)]
        async with server, asyncio.timeout(180):
            answers = await asyncio.gather(
                *(
                    ask(number, sock, listener.getsockname(), everybody_is_here, meanwhile)
                    for number, sock in enumerate(sockets)
                )
            )
            await asyncio.gather(*serving)
        assert all(answers)

    return gather


async def test_two_thousand_connections_at_once(rig, crowd, usage_of, eventually):
    """Again and again, so that what is not given back would show."""
    tunnel = rig.tunnel
    seen = []

    def look():
        seen.append((tunnel.status()["flows"]["tcp"], usage_of(tunnel.client), usage_of(tunnel.exit)))

    streams = rig.exit_number("halftunnel_streams")
    for _ in range(3):
        look()
        await crowd(CROWD, look)
        eventually(lambda: tunnel.status()["flows"]["tcp"] == 0)
        eventually(lambda: rig.exit_number("halftunnel_streams") <= streams)
    look()
    before, at_peak, _, at_second_peak, between, _, after = seen
    for number, process in ((1, tunnel.client), (2, tunnel.exit)):
        peak = at_peak[number].memory - before[number].memory
        assert peak < CROWD * MEMORY_PER_CONNECTION
        assert after[number].memory - between[number].memory < 8 * MEGABYTE
        # sockets of earlier tests may have gone meanwhile, so fewer is no fault; who was asked about
        # itself may not have closed the asker's connection yet
        eventually(lambda process=process, files=before[number].files: usage_of(process).files <= files)
    assert at_peak[0] == at_second_peak[0] == CROWD
    # and what is open for a moment or a while: who asks, an epoll instance, what an earlier test has left
    assert abs(at_peak[2].files - before[2].files - CROWD) < 10


def test_five_thousand_connections_one_after_the_other(rig, ends, usage_of, eventually):
    tunnel = rig.tunnel
    listener = ends.listen()
    address = listener.getsockname()
    streams = rig.exit_number("halftunnel_streams")

    def serve():
        for number in range(IN_A_ROW):
            connection = listener.accept()[0]
            with connection:
                question = connection.recv(100, socket.MSG_WAITALL)
                connection.sendall(question[::-1])
                if number % 2:
                    connection.shutdown(socket.SHUT_WR)
                assert connection.recv(1) == b""

    def visit(number):
        with socket.create_connection(address, timeout=30) as client:
            question = number.to_bytes(2, "little") * 50
            client.sendall(question)
            assert client.recv(100, socket.MSG_WAITALL) == question[::-1]
            if number % 2:
                assert client.recv(1) == b""

    with ThreadPoolExecutor() as threads, rig.lab.inside(CLIENT):
        serving = threads.submit(serve)
        before = None
        for number in range(IN_A_ROW):
            if number == 500:  # caches and free lists are filled by now
                before = usage_of(tunnel.client), usage_of(tunnel.exit)
            visit(number)
        serving.result()
    eventually(lambda: tunnel.status()["flows"]["tcp"] == 0)
    eventually(lambda: rig.exit_number("halftunnel_streams") <= streams)
    for process, early in zip((tunnel.client, tunnel.exit), before, strict=True):
        eventually(lambda process=process, early=early: usage_of(process).files <= early.files)
        assert usage_of(process).memory - early.memory < 5 * MEGABYTE
