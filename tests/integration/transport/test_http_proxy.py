"""Through an HTTP proxy that asks for a password, one that refuses, and some that are broken."""

from __future__ import annotations

import asyncio
import base64
import contextlib

import pytest

from halftunnel_vpn.errors import RoadError
from halftunnel_vpn.transport.browser_request import USER_AGENT


class ConnectProxy:
    """A proxy that knows CONNECT and nothing else."""

    def __init__(self, *, credentials=None, answer=None, interim=b"", apart=False):
        self._interim = interim
        self._apart = apart
        self._credentials = credentials
        self._answer = answer
        self.requests = []
        self.carried = 0

    async def serve(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.requests.append(head)
        answer = self._answer or self._judge(head)
        if self._apart:
            writer.write(self._interim)
            await writer.drain()
            await asyncio.sleep(0)
            writer.write(answer)
        else:
            writer.write(self._interim + answer)
        if self._answer is None and answer.startswith(b"HTTP/1.1 200"):
            host, _, port = head.split()[1].rpartition(":")
            far_reader, far_writer = await asyncio.open_connection(host.strip("[]"), int(port))
            await asyncio.gather(self._carry(reader, far_writer), self._carry(far_reader, writer))
        writer.close()

    def _judge(self, head):
        if self._credentials is not None:
            expected = base64.b64encode(self._credentials.encode()).decode()
            if f"Proxy-Authorization: Basic {expected}\r\n" not in head:
                return (
                    b'HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm="x"\r\nContent-Length: 2\r\n\r\nNo'
                )
        return b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n"

    async def _carry(self, reader, writer):
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                self.carried += len(data)
                writer.write(data)
                await writer.drain()
        writer.close()


@pytest.fixture
async def start_proxy():
    """Starts a proxy; returns it and its host:port."""
    stack = contextlib.AsyncExitStack()

    async def start(**options):
        proxy = ConnectProxy(**options)
        server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
        await stack.enter_async_context(server)
        return proxy, f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

    yield start
    await stack.aclose()


@pytest.fixture
def refusal(exit_server, recorder):
    """Dials by a proxy in vain; returns reason and message."""

    async def failing(proxy, **options):
        with pytest.raises(RoadError) as raised:
            await exit_server.dial(recorder(), proxy=proxy, **options)
        return raised.value.reason, str(raised.value)

    return failing


async def test_a_leg_by_way_of_a_proxy(exit_server, start_proxy, recorder):
    proxy, address = await start_proxy()
    owner = recorder()
    leg = await exit_server.dial(owner, proxy=f"http://{address}")
    leg.send(bytes(65_536))
    other = await exit_server.arrived()
    assert await other.received(1) == [bytes(65_536)]
    other.leg.send(b"back")
    assert await owner.received(1) == [b"back"]
    target = f"localhost:{exit_server.port}"
    assert proxy.requests == [
        f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Connection: keep-alive\r\n"
        f"User-Agent: {USER_AGENT}\r\n\r\n"
    ]
    assert proxy.carried > 65_536
    leg.close()
    assert await owner.closed() == "closed"


async def test_the_proxy_resolves_the_exits_name_not_we(exit_server, start_proxy, recorder):
    _, address = await start_proxy()
    asked = []

    async def resolve(host, port):
        asked.append(host)
        return [(host, port)]

    leg = await exit_server.dial(recorder(), proxy=f"http://{address}", resolve=resolve)
    assert asked == ["127.0.0.1"]
    assert leg.writable


async def test_a_password_opens_the_proxy(exit_server, start_proxy, recorder):
    _, address = await start_proxy(credentials="me:p@ss:word")
    leg = await exit_server.dial(recorder(), proxy=f"http://me:p%40ss%3Aword@{address}")
    assert leg.writable


async def test_a_proxy_that_wants_a_password(refusal, start_proxy):
    _, address = await start_proxy(credentials="me:secret")
    for proxy in (f"http://{address}", f"http://me:wr0ng@{address}"):
        reason, message = await refusal(proxy)
        assert reason == "proxy-authentication-required"
        assert address in message
        assert "wr0ng" not in message


async def test_a_proxy_that_refuses_the_password_or_wants_one_says_which(refusal, start_proxy):
    _, address = await start_proxy(credentials="me:secret")
    assert "wants a user name and a password: put them" in (await refusal(f"http://{address}"))[1]
    assert "refuses the user name or the password" in (await refusal(f"http://me:wr0ng@{address}"))[1]


@pytest.mark.parametrize(
    ("challenges", "named"),
    [
        ("Proxy-Authenticate: NTLM\r\n", "only NTLM authentication"),
        ("proxy-authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n", "only Negotiate, NTLM"),
        ('Proxy-Authenticate: Digest realm="basic", nonce="x"\r\n', "only Digest"),
        ('Proxy-Authenticate: NTLM, Basic realm="x"\r\n', None),
        ("", None),
    ],
)
async def test_a_proxy_without_basic_authentication_is_unsupported(refusal, start_proxy, challenges, named):
    answer = f"HTTP/1.1 407 No\r\n{challenges}Content-Length: 0\r\n\r\n".encode()
    _, address = await start_proxy(answer=answer)
    reason, message = await refusal(f"http://me:secret@{address}")
    if named is None:
        assert reason == "proxy-authentication-required"
    else:
        assert reason == "proxy-authentication-unsupported"
        assert named in message and "not supported: ask its operator for Basic" in message


@pytest.mark.parametrize("apart", [False, True])
async def test_interim_answers_of_a_proxy_only_announce_the_final_one(
    exit_server, start_proxy, recorder, apart
):
    proxy, address = await start_proxy(interim=b"HTTP/1.1 100 Continue\r\n\r\n" * 2, apart=apart)
    leg = await exit_server.dial(recorder(), proxy=f"http://{address}")
    assert leg.writable and len(proxy.requests) == 1


async def test_a_proxy_that_refuses(refusal, start_proxy):
    _, address = await start_proxy(answer=b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
    reason, message = await refusal(f"http://{address}")
    assert reason == "proxy-refused"
    assert "403" in message


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n\r\nand a greeting that nobody asked for",
        b"SOCKS?\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 17,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
    ],
)
async def test_a_proxy_that_talks_nonsense(refusal, start_proxy, answer):
    _, address = await start_proxy(answer=answer)
    assert (await refusal(f"http://{address}"))[0] == "proxy-refused"


async def test_a_proxy_that_is_not_there(refusal, free_port):
    reason, message = await refusal(f"http://127.0.0.1:{free_port}")
    assert reason == "connection-refused"
    assert str(free_port) in message


async def test_a_proxy_that_is_silent(refusal, silent_port):
    assert (await refusal(f"http://127.0.0.1:{silent_port}", connect_timeout=0.5))[0] == "proxy-timeout"
