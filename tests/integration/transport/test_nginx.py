"""A real nginx between dialler and listener, as it stands before exits."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import subprocess

import pytest
from lab.nginx import TEMPORARY_PATHS

CONFIGURATION = (
    """
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
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        location / {{
            proxy_pass http://127.0.0.1:{behind};
            proxy_bind 127.0.0.9;
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $http_connection;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
    }}
}}
"""
)


@pytest.fixture
async def behind_nginx(start_exit, authority, certificate, tmp_path, free_port, until):
    """A listener without TLS, with nginx in front of it."""
    exit_server = await start_exit(tls=False, trusted_proxies=[ipaddress.ip_network("127.0.0.9/32")])
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(
        CONFIGURATION.format(
            directory=tmp_path,
            port=free_port,
            behind=exit_server.port,
            certificate=certificate.certificate,
            key=certificate.key,
        )
    )
    command = ["nginx", "-p", tmp_path, "-e", tmp_path / "error.log", "-c", configuration]
    process = await asyncio.create_subprocess_exec(*command, stdin=subprocess.DEVNULL)
    try:
        await until(lambda: process.returncode is not None or answers(free_port))
        assert process.returncode is None, (tmp_path / "error.log").read_text()
        secret = exit_server.url.partition(f":{exit_server.port}")[2]
        exit_server.url = f"wss://localhost:{free_port}{secret}"
        exit_server.http_url = f"https://localhost:{free_port}"
        exit_server.options = type(exit_server.options)(ca_pem=authority.pem)
        yield exit_server
    finally:
        await exit_server.listener.close()
        if process.returncode is None:
            process.terminate()
        await process.wait()


def answers(port):
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


async def test_records_go_both_ways_through_nginx(behind_nginx):
    leg, owner, other_leg, other = await behind_nginx.pair()
    assert other_leg.peer == "127.0.0.1"  # by X-Forwarded-For; nginx itself comes from 127.0.0.9
    records = [os.urandom(size) for size in (1, 125, 126, 65_535, 65_536)] * 20
    for record in records:
        await owner.until(lambda _: leg.writable)
        await other.until(lambda _: other_leg.writable)
        leg.send(record)
        other_leg.send(record)
    assert await other.received(len(records)) == records
    assert await owner.received(len(records)) == records


async def test_closing_goes_through_nginx_both_ways(behind_nginx):
    leg, owner, _, other = await behind_nginx.pair()
    leg.close()
    assert await owner.closed() == "closed"
    assert await other.closed() == "peer-closed-1000"
    _, owner, other_leg, other = await behind_nginx.pair()
    other_leg.close(1001)
    assert await owner.closed() == "peer-closed-1001"
    assert await other.closed() == "closed"


async def test_a_lost_client_is_noticed_through_nginx(behind_nginx):
    leg, _, _, other = await behind_nginx.pair()
    leg.abort()
    assert await other.closed() == "connection-lost"


async def test_a_stranger_sees_the_site_through_nginx(behind_nginx, authority, tmp_path):
    bundle = tmp_path / "ca.pem"
    bundle.write_text(authority.pem)
    for path, expected in (("/", "200"), ("/unknown", "404")):
        command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", bundle]
        done = await asyncio.to_thread(
            subprocess.run,
            [*command, behind_nginx.http_url + path],
            capture_output=True,
            text=True,
            timeout=20,
        )
        assert done.stdout == expected
