"""Sessions through what stands between client and exit in life: an HTTP proxy, and nginx on both roads."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import socket

import pytest
from lab.nginx import TEMPORARY_PATHS

from halftunnel_vpn.errors import RoadError
from halftunnel_vpn.protocol.keys import Direction

UP, DOWN = Direction.UPSTREAM, Direction.DOWNSTREAM


class ConnectProxy:
    """An HTTP proxy that knows CONNECT alone and wants a password."""

    def __init__(self):
        self.targets = []
        self.port = 0

    async def serve(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        if "Proxy-Authorization: Basic dXNlcjp3b3Jk\r\n" not in head:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        host, _, port = head.split()[1].rpartition(":")
        self.targets.append(int(port))
        far_reader, far_writer = await asyncio.open_connection(host.strip("[]"), int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(self._carry(reader, far_writer), self._carry(far_reader, writer))

    async def _carry(self, reader, writer):
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()


@pytest.fixture
async def http_proxy():
    """Such a proxy on loopback."""
    proxy = ConnectProxy()
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    yield proxy
    server.close()


async def test_a_client_behind_an_http_proxy(running_exit, make_client, echo_server, http_proxy):
    await running_exit.start()
    client = await make_client(proxy=f"http://user:word@127.0.0.1:{http_proxy.port}").up()
    user = client.open(echo_server.port)
    data = secrets.token_bytes(2_000_000)
    assert await user.echo(data) == data
    assert sorted(http_proxy.targets) == sorted(running_exit.ports.values())


async def test_a_proxy_that_does_not_know_us(running_exit, make_client, http_proxy):
    await running_exit.start()
    client = make_client(proxy=f"http://user:wrong@127.0.0.1:{http_proxy.port}")
    with pytest.raises(RoadError) as raised:
        await client.connection.establish()
    assert raised.value.reason == "proxy-authentication-required"


CONFIGURATION = (
    """
{user}
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
"""
    + TEMPORARY_PATHS
    + """\
    {servers}
}}
"""
)

SERVER = """
    server {{
        listen {address}:{port} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        location = {path} {{
            proxy_pass http://{behind};
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_read_timeout 60s;
            proxy_send_timeout 60s;
        }}
        location / {{ return 200 "an ordinary site\\n"; }}
    }}
"""


@pytest.fixture
async def nginx(running_exit, tmp_path, free_port, until):
    """An exit without TLS, and nginx with TLS before both of its roads; gives the URLs of the roads."""
    await running_exit.start(tls=False, trusted_proxies=("127.0.0.0/8", "::1/128"))
    directory = tmp_path / "nginx"
    directory.mkdir()
    urls, servers = {}, []
    for road, name in ((UP, "a"), (DOWN, "b")):
        address = running_exit.addresses[road]
        inside = f"[{address}]" if ":" in address else address
        port, path = free_port(address), running_exit.url(road).rpartition("/")[2]
        certificate, key = running_exit.authorities.issue(f"nginx-{name}")
        urls[road] = f"wss://{inside}:{port}/{path}"
        servers.append(
            SERVER.format(
                address=inside,
                port=port,
                certificate=certificate,
                key=key,
                path=f"/{path}",
                behind=f"{inside}:{running_exit.ports[road]}",
            )
        )
    user = "user root;" if os.geteuid() == 0 else ""
    configuration = directory / "nginx.conf"
    configuration.write_text(CONFIGURATION.format(user=user, directory=directory, servers="\n".join(servers)))
    command = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert command, "nginx is not installed"
    process = await asyncio.create_subprocess_exec(
        command, "-p", str(directory), "-e", str(directory / "error.log"), "-c", str(configuration)
    )
    try:
        await until(lambda: process.returncode is None and (directory / "nginx.pid").exists())
        yield urls
    finally:
        process.terminate()
        await process.wait()


@pytest.fixture
def behind_nginx(nginx, make_client):
    """Clients that reach the exit through nginx."""

    def make(name="laptop"):
        urls = {road: [url] for road, url in nginx.items()}
        return make_client(name, urls=urls, authority={UP: "nginx-a", DOWN: "nginx-b"})

    return make


async def test_sessions_behind_nginx_on_both_roads(running_exit, behind_nginx, echo_server, until):
    client = await behind_nginx().up()
    users = [client.open(echo_server.port) for _ in range(4)]
    data = secrets.token_bytes(5_000_000)
    for received in await asyncio.gather(*(user.echo(data) for user in users)):
        assert received == data
    (member,) = running_exit.sessions()
    assert {leg.name for leg in member.session.legs} <= {"127.0.0.1", "::1"}
    for leg in client.legs(DOWN):
        leg.abort()
    assert await users[0].echo(data) == data
    assert client.connection.session_number == 1
    assert not running_exit.dropped
    await client.down()
    await until(lambda: not running_exit.sessions())


async def test_a_refusal_behind_nginx_is_told_of_the_visitor(running_exit, behind_nginx, caplog):
    client = behind_nginx("stranger")
    running_exit.remove("stranger")
    with pytest.raises(RoadError):
        await client.connection.establish()
    assert running_exit.dropped["handshake-unknown-client"] == 1
    (line,) = [record for record in caplog.records if hasattr(record, "peer")]
    assert line.reason == "handshake-unknown-client"


async def test_an_exit_that_is_away_behind_nginx(running_exit, behind_nginx):
    client = behind_nginx()
    await running_exit.stop()
    with pytest.raises(RoadError) as raised:
        await client.connection.establish()
    assert raised.value.reason == "http-status-502"
    assert "the exit behind it is down" in str(raised.value)
    assert socket.has_ipv6
