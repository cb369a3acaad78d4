"""Strangers are served by a real nginx behind the exit: its answers arrive byte by byte."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import subprocess

import pytest
from lab.nginx import TEMPORARY_PATHS

from halftunnel_vpn.transport.admission import ListenLimits

CONFIGURATION = (
    """
daemon off;
user root;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log {directory}/access.log;
    log_format shown "$http_x_forwarded_for $http_x_forwarded_proto";
    access_log {directory}/shown.log shown;
"""
    + TEMPORARY_PATHS
    + """\
    client_header_timeout 1s;
    server {{
        listen 127.0.0.1:{port};
        root {directory}/root;
    }}
}}
"""
)

CLOSE = "Host: x\r\nConnection: close\r\n"
PROBES = {
    "page": f"GET / HTTP/1.1\r\n{CLOSE}\r\n",
    "head": f"HEAD / HTTP/1.1\r\n{CLOSE}\r\n",
    "old": "GET / HTTP/1.0\r\n\r\n",
    "range": f"GET /large HTTP/1.1\r\n{CLOSE}Range: bytes=10-19\r\n\r\n",
    "bad range": f"GET / HTTP/1.1\r\n{CLOSE}Range: bytes=900000-\r\n\r\n",
    "large": f"GET /large HTTP/1.1\r\n{CLOSE}\r\n",
    "404": f"GET /nothing HTTP/1.1\r\n{CLOSE}\r\n",
    "405": f"POST / HTTP/1.1\r\n{CLOSE}Content-Length: 5\r\n\r\nhello",
    "unknown method": f"BREW / HTTP/1.1\r\n{CLOSE}\r\n",
    "trace": f"TRACE / HTTP/1.1\r\n{CLOSE}\r\n",
    "400": "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "no host": "GET / HTTP/1.1\r\n\r\n",
    "garbage": "\x16\x03\x01 garbage\r\n\r\n",
    "0.9": "GET /\r\n",
    "505": "GET / HTTP/3.0\r\n\r\n",
    "414": f"GET /{'a' * 20_000} HTTP/1.1\r\n{CLOSE}\r\n",
    "494": f"GET / HTTP/1.1\r\n{CLOSE}X-Long: {'a' * 20_000}\r\n\r\n",
    "upgrade": "GET /x HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: close\r\n\r\n",
}


@pytest.fixture
async def nginx(tmp_path, free_port, until):
    """A web server with a small and a large file; returns its port."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "index.html").write_text("<p>Bakery</p>")
    (tmp_path / "root" / "large").write_bytes(bytes(range(256)) * 8000)
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(CONFIGURATION.format(directory=tmp_path, port=free_port))
    process = await asyncio.create_subprocess_exec(
        *("nginx", "-p", tmp_path, "-e", tmp_path / "error.log", "-c", configuration),
        stdin=subprocess.DEVNULL,
    )

    def answers():
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", free_port)) == 0

    await until(lambda: process.returncode is not None or answers())
    assert process.returncode is None, (tmp_path / "error.log").read_text()
    yield free_port
    process.terminate()
    await process.wait()


@pytest.fixture
def ask(authority):
    """Sends bytes and returns all that comes back, without the date."""

    async def send(port, request, *, tls=False):
        context = ssl.create_default_context(cadata=authority.pem) if tls else None
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname="localhost" if tls else None
        )
        writer.write(request.encode("latin-1"))
        async with asyncio.timeout(60):
            answer = await reader.read()
        writer.close()
        return re.sub(rb"Date: [^\r]*", b"", answer)

    return send


@pytest.mark.parametrize("tls", [True, False])
async def test_each_answer_is_that_of_nginx(start_exit, nginx, ask, tls):
    exit_server = await start_exit(tls=tls, fallback=("127.0.0.1", nginx))
    for name, request in PROBES.items():
        direct = await ask(nginx, request)
        assert direct, name
        assert b"403 Forbidden" not in direct, name
        assert await ask(exit_server.port, request, tls=tls) == direct, name
    assert exit_server.listener.counters.counted["fallback-answers"] == len(PROBES)


async def test_the_web_server_learns_who_asked(start_exit, nginx, ask, tmp_path, until):
    exit_server = await start_exit(fallback=("127.0.0.1", nginx))
    request = "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.9\r\nConnection: keep-alive\r\n\r\n"
    assert b"Bakery" in await ask(exit_server.port, request, tls=True)
    await until(lambda: "127.0.0.1 https" in (tmp_path / "shown.log").read_text())


async def test_who_drips_its_request_is_left_to_the_web_server(start_exit, nginx):
    exit_server = await start_exit(
        tls=False, fallback=("127.0.0.1", nginx), limits=ListenLimits(request_timeout=0.2)
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", exit_server.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: ")
    async with asyncio.timeout(60):
        assert await reader.read() == b"", "nginx says nothing, and ends the connection"
    writer.close()


async def test_a_stranger_that_has_read_its_answer_and_goes_is_gone(start_exit, nginx, ask, until):
    """Without TLS both directions of a connection end one by one: the last of them ends the connection."""
    exit_server = await start_exit(tls=False, fallback=("127.0.0.1", nginx))
    assert b"Bakery" in await ask(exit_server.port, PROBES["page"])
    await until(lambda: exit_server.listener.admission.connections == 0)


async def test_legs_come_in_beside_the_web_server(start_exit, nginx):
    exit_server = await start_exit(fallback=("127.0.0.1", nginx))
    leg, _, _, other = await exit_server.pair()
    leg.send(b"still here")
    assert await other.received(1) == [b"still here"]


async def test_without_the_web_server_strangers_get_a_502(start_exit, free_port, ask):
    exit_server = await start_exit(tls=False, fallback=("127.0.0.1", free_port))
    answer = await ask(exit_server.port, PROBES["page"])
    assert answer.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    assert exit_server.listener.counters.dropped["fallback-failed"] == 1


async def test_a_stranger_that_reads_nothing_holds_little(start_exit, nginx, until):
    exit_server = await start_exit(tls=False, fallback=("127.0.0.1", nginx))
    _, writer = await asyncio.open_connection("127.0.0.1", exit_server.port, limit=1)
    writer.write(PROBES["large"].encode())
    await until(lambda: exit_server.listener.counters.counted["fallback-answers"])
    writer.transport.abort()
    await until(lambda: exit_server.listener.admission.connections == 0)
