"""The HTTP proxy over real sockets: CONNECT, and requests that are forwarded."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator

import pytest
from lab.in_memory import poll

from halftunnel_vpn.proxy import http_forward


def content_length(head: bytes) -> int:
    """The number in the header."""
    return int(head.lower().split(b"content-length: ")[1].split()[0])


class Origin:
    """A web server: notes requests, and answers each with ``answers``, one after the other, or the last."""

    def __init__(self) -> None:
        self.port = 0
        self.requests: list[tuple[bytes, bytes]] = []
        self.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-From: origin\r\n\r\nhi"]
        self.connections = 0
        self.closes = False
        self.held: asyncio.Event | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = b""
                if b"chunked" in head.lower():
                    while size := int(await reader.readuntil(b"\r\n"), 16):
                        body += (await reader.readexactly(size + 2))[:-2]
                    await reader.readuntil(b"\r\n")
                elif b"content-length: " in head.lower():
                    body = await reader.readexactly(
                        int(head.lower().split(b"content-length: ")[1].split()[0])
                    )
                self.requests.append((head, body))
                if self.held is not None:
                    await self.held.wait()
                if writer.transport.is_closing():
                    break
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                writer.write(answer)
                await writer.drain()
                if self.closes:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    made = Origin()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()


async def exchange(reader, writer, request: bytes) -> tuple[bytes, bytes]:
    """One request; head and body of the answer."""
    writer.write(request)
    async with asyncio.timeout(30):
        head = await reader.readuntil(b"\r\n\r\n")
        lower = head.lower()
        if b"content-length: " in lower:
            return head, await reader.readexactly(content_length(head))
        body = b""
        if b"chunked" in lower:
            while size := int(await reader.readuntil(b"\r\n"), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readuntil(b"\r\n")
        return head, body


async def test_requests_of_one_connection_share_a_stream_and_lose_what_is_for_the_proxy(proxied, origin):
    proxy = proxied(users={"me": "word"})
    reader, writer = await proxy.connect(1)
    secret = base64.b64encode(b"me:word")
    for number in range(3):
        head, body = await exchange(
            reader,
            writer,
            b"GET http://127.0.0.1:%d/p%d?q#f HTTP/1.1\r\nHost: other\r\nProxy-Connection: keep-alive\r\n"
            b"Proxy-Authorization: Basic %s\r\nConnection: X-Hop\r\nX-Hop: 1\r\nX-End: 1\r\n\r\n"
            % (origin.port, number, secret),
        )
        assert head.startswith(b"HTTP/1.1 200 OK\r\n") and b"x-from: origin" in head.lower() and body == b"hi"
    seen = [head.lower() for head, _ in origin.requests]
    assert [head.split()[1] for head in seen] == [b"/p0?q", b"/p1?q", b"/p2?q"]
    for head in seen:
        assert b"host: 127.0.0.1:%d\r\n" % origin.port in head and b"x-end: 1" in head
        for absent in (b"proxy-", b"x-hop", b"via:", b"other", secret.lower()):
            assert absent not in head
    assert origin.connections == 1
    writer.close()
    await proxy.idle()


@pytest.mark.parametrize("coding", ["length", "chunked"])
async def test_a_body_goes_up_whole_and_the_answer_comes_back(proxied, origin, coding):
    proxy = proxied()
    reader, writer = await proxy.connect(1)
    body = bytes(range(256)) * 8000
    start = b"POST http://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\n" % origin.port
    if coding == "length":
        data = start + b"Content-Length: %d\r\n\r\n" % len(body) + body
    else:
        data = start + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    _, answer = await exchange(reader, writer, data)
    assert answer == b"hi" and origin.requests[0][1] == body
    writer.close()
    await proxy.idle()


async def test_pipelined_requests_are_answered_in_order(proxied, origin):
    proxy = proxied()
    origin.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number for number in range(5)]
    reader, writer = await proxy.connect(1)
    writer.write(b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\n\r\n" % origin.port * 5)
    answers = [(await exchange(reader, writer, b""))[1] for _ in range(5)]
    assert answers == [b"0", b"1", b"2", b"3", b"4"]
    writer.close()
    await proxy.idle()


async def test_an_answer_that_ends_with_its_connection_is_whole(proxied, origin):
    origin.closes = True
    origin.answers = [b"HTTP/1.1 200 OK\r\n\r\n" + bytes(500_000)]
    proxy = proxied()
    reader, writer = await proxy.connect(1)
    request = b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\n\r\n" % origin.port
    for _ in range(2):
        assert (await exchange(reader, writer, request))[1] == bytes(500_000)
    assert origin.connections == 2
    writer.close()
    await proxy.idle()


async def test_an_answer_that_is_cut_off_is_seen_to_be(proxied, origin):
    origin.closes = True
    origin.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"]
    proxy = proxied()
    request = b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\n\r\n" % origin.port
    with pytest.raises(ConnectionResetError):
        answer = await proxy.ask(request, 1)
        raise AssertionError(answer)
    await proxy.idle()


async def test_each_failure_has_a_status_and_a_sentence(proxied, origin):
    proxy = proxied(exit_={})
    answers = {
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n": (400, b"this is an HTTP proxy"),
        b"GET https://a.test/ HTTP/1.1\r\nHost: x\r\n\r\n": (400, b"CONNECT"),
        b"GET http://10.0.0.1/ HTTP/1.1\r\nHost: x\r\n\r\n": (403, b"egress"),
        b"CONNECT 10.0.0.1:443 HTTP/1.1\r\nHost: x\r\n\r\n": (403, b"egress"),
        b"CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: x\r\n\r\n": (502, b"refused the connection"),
        b"GET http://127.0.0.1:1/ HTTP/1.1\r\nHost: x\r\n\r\n": (502, b"refused the connection"),
        b"CONNECT nonsense HTTP/1.1\r\nHost: x\r\n\r\n": (400, b"not a host name"),
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n": (400, b"is malformed"),
        b"GET http://a.test/ HTTP/1.1\r\nHost: x\r\nX: " + bytes(70_000): (431, b"is malformed"),
    }
    for request, (status, sentence) in answers.items():
        answer = await proxy.ask(request, 1)
        assert answer.startswith(b"HTTP/1.1 %d " % status), (request[:40], answer)
        assert sentence in answer and b"\r\nConnection: close\r\n" in answer
    locked = proxied(users={"me": "word"})
    answer = await locked.ask(b"CONNECT a.test:443 HTTP/1.1\r\nHost: x\r\n\r\n", 1)
    assert answer.startswith(b"HTTP/1.1 407 ") and b'\r\nProxy-Authenticate: Basic realm="htvpn"' in answer
    await proxy.idle()


async def test_a_program_that_reads_slowly_holds_the_origin_back(proxied, origin):
    size = 60_000_000
    origin.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)]
    proxy = proxied()
    reader, writer = await proxy.connect(1)
    writer.write(b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\n\r\n" % origin.port)
    await reader.readuntil(b"\r\n\r\n")
    held = 0
    (program,) = proxy.service._visitors
    for _ in range(50):  # it settles below the window of a stream
        await asyncio.sleep(0.01)
        held = len(program._next._backlog)
    assert held <= 17 * 1024 * 1024
    received = 0
    async with asyncio.timeout(60):
        while received < size:
            received += len(await reader.read(1 << 20))
    writer.close()
    await proxy.idle()


async def test_a_program_that_leaves_ends_what_it_had_asked_for(proxied, origin):
    origin.held = asyncio.Event()
    proxy = proxied()
    _, writer = await proxy.connect(1)
    writer.write(b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\n\r\n" % origin.port)
    await poll(lambda: origin.requests)
    writer.close()
    await proxy.idle()
    origin.held.set()


async def test_a_connection_between_two_requests_ends_after_a_while(proxied, origin, monkeypatch):
    monkeypatch.setattr(http_forward, "IDLE", 0.2)
    proxy = proxied()
    reader, writer = await proxy.connect(1)
    await exchange(reader, writer, b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nHost: x\r\n\r\n" % origin.port)
    assert await asyncio.wait_for(reader.read(), 30) == b""
    writer.close()
    await proxy.idle()
