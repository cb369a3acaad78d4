"""The control service on real sockets, asked by the real client and by raw bytes."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import threading
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from halftunnel_vpn.control import requests
from halftunnel_vpn.control.control_service import (
    MAX_BODY,
    ControlService,
    Response,
    ServicePolicy,
    failure,
)
from halftunnel_vpn.control.observation_routes import observation_routes
from halftunnel_vpn.control.request_reader import Request
from halftunnel_vpn.errors import HostError


async def echo(request: Request) -> Response:
    return Response(
        200, "text/plain", b"%s %s %s" % (request.method.encode(), request.query.encode(), request.body)
    )


async def broken(_request: Request) -> Response:
    raise RuntimeError("a bug")


@asynccontextmanager
async def served(routes, **options):
    """A service on loopback; yields its port."""
    service = ControlService(routes, **options)
    try:
        yield await service.serve_tcp("127.0.0.1", 0)
    finally:
        await service.close()


async def talk(port: int, data: bytes) -> bytes:
    """Send, then everything that comes back until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    await writer.drain()
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


def request(target: str, *, method: str = "GET", body: bytes = b"", close: bool = True) -> bytes:
    closing = "Connection: close\r\n" if close else ""
    head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{closing}\r\n"
    return head.encode() + body


async def no_problems() -> list[str]:
    return []


async def test_metrics_health_and_readiness():
    ready = False

    async def problems() -> list[str]:
        return [] if ready else ["resolver: no resolver answers"]

    routes = observation_routes(lambda: ("text/x-metrics", b"m 1\n"), problems)
    async with served(routes) as port:
        answer = await talk(port, request("/metrics"))
        assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"\r\n\r\nm 1\n")
        assert b"Content-Type: text/x-metrics\r\n" in answer
        assert (await talk(port, request("/healthz"))).endswith(b"ok\n")
        refused = await talk(port, request("/readyz"))
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert refused.endswith(b"\r\n\r\nnot ready\nresolver: no resolver answers\n")
        ready = True
        assert (await talk(port, request("/readyz"))).endswith(b"ready\n")


async def test_two_requests_on_one_connection_are_answered_in_order():
    async with served({("POST", "/echo"): echo}) as port:
        first = request("/echo?a=1", method="POST", body=b"one", close=False)
        answer = await talk(port, first + request("/echo?b=2", method="POST", body=b"two"))
    assert [part for part in (b"POST a=1 one", b"POST b=2 two") if part in answer] == [
        b"POST a=1 one",
        b"POST b=2 two",
    ]
    assert answer.index(b"one") < answer.index(b"two")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request("/nowhere"), 404),
        (request("/echo"), 405),
        (request("/broken"), 500),
        (request("/broken", method="HEAD"), 500),
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
        (request("/echo", method="POST", body=bytes(MAX_BODY + 1)), 413),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ],
    ids=["path", "method", "bug", "bug by HEAD", "no HTTP", "no host", "long head", "long body", "bad chunk"],
)
async def test_what_cannot_be_served_gets_its_status_and_the_next_one_is_served(data, status, caplog):
    caplog.set_level("CRITICAL", logger="halftunnel_vpn")
    async with served({("POST", "/echo"): echo, ("GET", "/broken"): broken}) as port:
        answer = await talk(port, data)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert b"RuntimeError" not in answer and b"Traceback" not in answer
        assert (await talk(port, request("/echo", method="POST", body=b"x"))).endswith(b"POST  x")


async def test_head_is_answered_like_get_without_the_body():
    async with served(observation_routes(lambda: ("a/b", b"12345"), no_problems)) as port:
        answer = await talk(port, request("/metrics", method="HEAD"))
    assert b"Content-Length: 5\r\n" in answer and answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("version", ["0.1", "1.0", "1.1"])
@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ("Transfer-Encoding: chunked", b"zz\r\n", 400),
        ("Transfer-Encoding: gzip", b"", 501),
        ("Content-Length: x", b"", 400),
        (f"Content-Length: {MAX_BODY + 1}", bytes(MAX_BODY + 1), 413),
    ],
    ids=["broken chunk", "unknown coding", "bad length", "long body"],
)
async def test_an_error_answer_to_head_has_no_body_and_ends_the_connection(
    version, headers, body, status, caplog
):
    data = f"HEAD /metrics HTTP/{version}\r\nHost: x\r\n{headers}\r\n\r\n".encode() + body
    async with served(observation_routes(lambda: ("a/b", b"12345"), no_problems)) as port:
        answer = await talk(port, data)
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status) and b"\r\nConnection: close" in head
    # A head that h11 cannot read has no method, so its answer has a body.
    assert rest == b"" or b"malformed request" in rest
    assert not caplog.records


async def test_who_says_nothing_is_cut_off():
    async with served({}, timeout=0.05) as port:
        assert await asyncio.wait_for(talk(port, b"GET / HT"), 30) == b""


async def test_a_handler_that_does_not_end_is_given_up_with_a_sentence():
    async def endless(_request: Request) -> Response:
        await asyncio.Event().wait()
        raise AssertionError

    async with served({("GET", "/endless"): endless}, handler_timeout=0.05) as port:
        answer = await asyncio.wait_for(talk(port, request("/endless")), 30)
    assert answer.startswith(b"HTTP/1.1 503 ") and b"no answer within" in answer


async def test_connections_beyond_the_limit_are_closed_and_leave_room_again():
    async with served({("POST", "/echo"): echo}, max_connections=2) as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        for reader, writer in held:
            writer.write(request("/echo", method="POST", body=b"held", close=False))
            await reader.readuntil(b"held")
        assert await talk(port, request("/echo", method="POST")) == b""
        for _, writer in held:
            writer.close()
            await writer.wait_closed()
        answer = b""
        while not answer:  # the service notices the closing a moment later
            answer = await talk(port, request("/echo", method="POST", body=b"room"))
        assert answer.endswith(b"room")


async def test_closing_ends_the_connections_that_are_open():
    service = ControlService({})
    port = await service.serve_tcp("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.wait_for(service.close(), 30)
    assert await asyncio.wait_for(reader.read(), 30) == b""
    writer.close()


async def test_a_port_in_use_is_one_sentence():
    async with served({}) as port:
        service = ControlService({})
        with pytest.raises(
            HostError, match=rf"cannot listen on 127\.0\.0\.1 port {port}: .*; choose another"
        ):
            await service.serve_tcp("127.0.0.1", port)
        await service.close()


# --- the Unix socket, and the client that the command line uses -----------------------------------


@asynccontextmanager
async def running(path: str, status: Callable[[], dict[str, Any]], stop: Callable[[], None]):
    async def tell(_request: Request) -> Response:
        return Response(200, "application/json", json.dumps(status()).encode())

    async def down(_request: Request) -> Response:
        stop()
        return Response(202, "application/json", b"{}")

    service = ControlService({("GET", "/v1/status"): tell, ("POST", "/v1/down"): down})
    await service.serve_unix(path)
    try:
        yield
    finally:
        await service.close()


async def test_status_and_down_through_the_unix_socket(tmp_path):
    path = str(tmp_path / "run" / "control.sock")
    stopped = threading.Event()
    async with running(path, lambda: {"state": "connected", "pid": 7}, stopped.set):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert await asyncio.to_thread(requests.read_status, path) == {"state": "connected", "pid": 7}
        assert await asyncio.to_thread(requests.is_served, path)
        assert await asyncio.to_thread(requests.request_stop, path)
        assert stopped.is_set()
    assert os.listdir(tmp_path / "run") == []
    assert requests.read_status(path) is None
    assert requests.request_stop(path) is False
    assert not requests.is_served(path)


async def test_a_second_process_is_refused_and_the_first_goes_on(tmp_path):
    path = str(tmp_path / "control.sock")
    async with running(path, lambda: {"pid": 1}, lambda: None):
        second = ControlService({})
        with pytest.raises(
            HostError, match=r"another htvpn is running and answers at .*; stop it with 'htvpn down'"
        ):
            await second.serve_unix(path)
        await second.close()
        assert await asyncio.to_thread(requests.read_status, path) == {"pid": 1}


async def test_what_a_dead_process_left_is_replaced(tmp_path):
    path = str(tmp_path / "control.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    assert requests.read_status(path) is None
    async with running(path, lambda: {"pid": 2}, lambda: None):
        assert await asyncio.to_thread(requests.read_status, path) == {"pid": 2}


async def test_a_process_that_hangs_is_not_replaced(tmp_path):
    path = str(tmp_path / "control.sock")
    with socket.socket(socket.AF_UNIX) as hung, socket.socket(socket.AF_UNIX) as waiting:
        hung.bind(path)
        hung.listen(0)
        waiting.connect(path)  # the queue is full now, and nobody takes from it
        assert requests.is_served(path)
        with pytest.raises(HostError, match="another htvpn is running"):
            await ControlService({}).serve_unix(path)
    assert os.listdir(tmp_path) == ["control.sock"]


async def test_the_socket_of_a_successor_is_left(tmp_path):
    path = str(tmp_path / "control.sock")
    successor = ControlService({})
    asked = asyncio.Event()

    async def slow(_request: Request) -> Response:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            await successor.serve_unix(path)  # started while this one ends
        raise AssertionError("nobody sets it")

    service = ControlService({("GET", "/slow"): slow})
    await service.serve_unix(path)
    _, writer = await asyncio.open_unix_connection(path)
    writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
    await asked.wait()
    await service.close()
    answer = await asyncio.to_thread(requests.ask, path, "GET", "/nothing")
    assert answer is not None and answer.status == 404
    await successor.close()
    assert os.listdir(tmp_path) == []
    writer.close()
    await writer.wait_closed()


async def test_a_file_in_the_way_is_not_removed(tmp_path):
    path = tmp_path / "control.sock"
    path.write_text("precious")
    service = ControlService({})
    with pytest.raises(HostError, match="is in the way of the control socket and is not a socket; remove it"):
        await service.serve_unix(str(path))
    await service.close()
    assert path.read_text() == "precious"


async def test_a_path_too_long_for_a_unix_socket_is_one_sentence(tmp_path):
    service = ControlService({})
    with pytest.raises(HostError, match="longer than 107 bytes"):
        await service.serve_unix(str(tmp_path / ("x" * 120)))
    await service.close()


async def test_a_directory_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    service = ControlService({})
    with pytest.raises(HostError, match="cannot make the control socket"):
        await service.serve_unix(str(tmp_path / "file" / "control.sock"))
    await service.close()


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 200 OK\r\n", b"\xff\xfe\r\n\r\n"],
    ids=["hangs up", "half an answer", "no HTTP"],
)
async def test_a_process_that_answers_nonsense_is_one_sentence(tmp_path, answer):
    path = str(tmp_path / "control.sock")

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_unix_server(speak, path)
    async with server:
        with pytest.raises(HostError, match=r"does not answer|is not an htvpn client"):
            await asyncio.to_thread(requests.read_status, path)


@pytest.mark.parametrize("body", [b"[]", b"{", json.dumps("x").encode()])
async def test_a_status_that_is_none_is_one_sentence(tmp_path, body):
    path = str(tmp_path / "control.sock")

    async def tell(_request: Request) -> Response:
        return Response(200, "application/json", body)

    service = ControlService({("GET", "/v1/status"): tell})
    await service.serve_unix(path)
    with pytest.raises(HostError, match="is not an htvpn client of this version"):
        await asyncio.to_thread(requests.read_status, path)
    with pytest.raises(HostError, match="is not an htvpn client of this version"):
        await asyncio.to_thread(requests.request_stop, path)
    await service.close()


async def test_a_process_that_hangs_is_given_up(tmp_path):
    path = str(tmp_path / "control.sock")
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(path)
        silent.listen()
        with pytest.raises(HostError, match="does not answer"):
            requests.ask(path, "GET", "/", timeout=0.05)


class Parts:
    """A body of parts that a test hands over."""

    def __init__(self) -> None:
        self.parts: asyncio.Queue[bytes] = asyncio.Queue()
        self.closed = asyncio.Event()

    async def next_part(self) -> bytes:
        return await self.parts.get()

    def close(self) -> None:
        self.closed.set()


@pytest.fixture
def parts() -> Parts:
    return Parts()


def streaming(parts: Parts):
    async def stream(_request: Request) -> Response:
        return Response(200, "text/event-stream", b"first;", source=parts)

    return {("GET", "/stream"): stream}


async def test_a_body_of_parts_is_sent_as_they_come_and_ends_with_the_connection(parts):
    async with served(streaming(parts)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request("/stream", close=False))
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Transfer-Encoding: chunked" in head and b"Content-Length" not in head
        assert await reader.readexactly(11) == b"6\r\nfirst;\r\n"
        parts.parts.put_nowait(b"second")
        assert await reader.readexactly(11) == b"6\r\nsecond\r\n"
        parts.parts.put_nowait(b"")
        assert await reader.read() == b"0\r\n\r\n"
        writer.close()
    assert parts.closed.is_set()


async def test_a_body_of_parts_is_released_when_its_reader_leaves(parts):
    async with served(streaming(parts)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request("/stream", close=False))
        await reader.readuntil(b"first;\r\n")
        writer.close()
        async with asyncio.timeout(30):
            await parts.closed.wait()


async def test_the_head_of_a_body_of_parts_is_no_stream(parts):
    async with served(streaming(parts)) as port:
        answer = await talk(port, request("/stream", method="HEAD"))
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"\r\n\r\n")
    assert parts.closed.is_set()


async def test_a_policy_holds_for_every_request_and_every_answer():
    refused: list[str] = []

    def check(asked: Request) -> Response | None:
        return None if asked.headers.get(b"host") == b"x" else failure(403, "another host")

    policy = ServicePolicy(check, ((b"X-Policy", b"kept"),), refused.append)
    async with served({("POST", "/echo"): echo}, policy=policy, max_body=10) as port:
        answers = {
            status: await talk(port, data)
            for status, data in {
                200: request("/echo", method="POST"),
                403: request("/nowhere").replace(b"Host: x", b"Host: y"),
                404: request("/nowhere"),
                413: request("/echo", method="POST", body=bytes(11)),
                400: b"GET / HTTP/1.1\r\n\r\n",
            }.items()
        }
    for status, answer in answers.items():
        assert answer.startswith(b"HTTP/1.1 %d " % status) and b"\r\nX-Policy: kept\r\n" in answer
    assert refused == ["body-too-long", "malformed-request"]
