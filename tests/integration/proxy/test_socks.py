"""SOCKS over real sockets: what python-socks and bytes of our own say, and what the exit answers."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import struct
from ipaddress import ip_network

import pytest
from lab.in_memory import poll
from python_socks import ProxyError
from python_socks.async_.asyncio import Proxy

from halftunnel_vpn.config.net import Endpoint
from halftunnel_vpn.errors import HostError
from halftunnel_vpn.proxy import proxy_client, stream_dial
from halftunnel_vpn.server.dialing import DialLimits
from halftunnel_vpn.server.egress import EgressPolicy

HELLO = b"\x05\x01\x00"


def connect_request(host: str, port: int, command: int = 1) -> bytes:
    """A SOCKS5 request."""
    try:
        address = ipaddress.ip_address(host)
        where = bytes((1 if address.version == 4 else 4,)) + address.packed
    except ValueError:
        where = b"\x03" + bytes((len(host),)) + host.encode()
    return bytes((5, command, 0)) + where + port.to_bytes(2, "big")


@pytest.mark.parametrize("kind", ["socks5", "socks4", "http"])
async def test_python_socks_carries_bytes_both_ways(proxied, echo, kind):
    proxy = proxied()
    client = Proxy.from_url(f"{kind}://127.0.0.1:{proxy.ports[kind == 'http']}")
    sock = await client.connect("127.0.0.1", echo.port)
    reader, writer = await asyncio.open_connection(sock=sock)
    sent = os.urandom(3_000_000)
    writer.write(sent)
    writer.write_eof()
    async with asyncio.timeout(60):
        assert await reader.read(-1) == sent
    writer.close()
    await proxy.idle()


async def test_bytes_that_come_with_the_request_are_not_lost(proxied, echo):
    proxy = proxied()
    reader, writer = await proxy.connect()
    writer.write(HELLO + connect_request("127.0.0.1", echo.port) + b"early")
    assert await reader.readexactly(2) == b"\x05\x00"
    assert await reader.readexactly(10) == b"\x05\x00\x00\x01" + bytes(6)
    assert await reader.readexactly(5) == b"early"
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()
    await proxy.idle()


async def test_a_program_behind_a_unix_socket(proxied, echo, short_path):
    proxy = proxied(socks=(str(short_path),), http=())
    assert short_path.stat().st_mode & 0o777 == 0o600
    reader, writer = await asyncio.open_unix_connection(str(short_path))
    writer.write(HELLO + connect_request("127.0.0.1", echo.port) + b"x")
    assert (await reader.readexactly(13))[-1:] == b"x"
    writer.close()
    await proxy.idle()
    proxy.service.close()
    assert not short_path.exists()


async def test_a_forwarded_port_needs_no_protocol(proxied, echo):
    proxy = proxied(socks=(), http=(), forward={"127.0.0.1:18080": f"127.0.0.1:{echo.port}"})
    reader, writer = await proxy.connect()
    writer.write(b"plain")
    assert await reader.readexactly(5) == b"plain"
    writer.close()
    await proxy.idle()


def refused_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def test_each_refusal_has_the_reply_code_of_the_rfc(proxied, resolver):
    resolver.addresses = {"inside.test": ["10.1.2.3"]}
    proxy = proxied(
        exit_={
            "resolvers": [resolver.endpoint],
            "policy": EgressPolicy(allow=[ip_network("127.0.0.0/8")]),
            "dials": DialLimits(timeout=0.3),
        }
    )
    cases = {
        "inside.test": (80, 1, 2),  # not allowed by ruleset
        "10.0.0.1": (80, 1, 2),
        "missing.test": (80, 1, 4),  # host unreachable
        "127.0.0.1": (refused_port(), 1, 5),  # connection refused
        "127.0.0.2": (80, 2, 7),  # BIND: command not supported
        "bad name": (80, 1, 4),
        "127.0.0.3": (0, 1, 1),
    }
    for host, (port, command, code) in cases.items():
        answer = await proxy.ask(HELLO + connect_request(host, port, command))
        assert answer == b"\x05\x00\x05" + bytes((code,)) + b"\x00\x01" + bytes(6), host
    unknown_kind = await proxy.ask(HELLO + b"\x05\x01\x00\x09abcdef")
    assert unknown_kind[2:4] == b"\x05\x08"  # address type not supported
    await proxy.idle()


async def test_a_socks4_program_is_refused_by_its_code(proxied):
    proxy = proxied()
    port = refused_port().to_bytes(2, "big")
    assert await proxy.ask(b"\x04\x01" + port + bytes((127, 0, 0, 1)) + b"me\0") == b"\0\x5b" + bytes(6)
    assert await proxy.ask(b"\x04\x02" + port + bytes((127, 0, 0, 1)) + b"me\0") == b"\0\x5b" + bytes(6)


async def test_users_must_have_the_right_password(proxied, echo):
    proxy = proxied(users={"alice": "wonder"})
    for kind, index in (("socks5", 0), ("http", 1)):
        right = Proxy.from_url(f"{kind}://alice:wonder@127.0.0.1:{proxy.ports[index]}")
        (await right.connect("127.0.0.1", echo.port)).close()
        for name, word in (("alice", "wrong"), ("bob", "wonder")):
            wrong = Proxy.from_url(f"{kind}://{name}:{word}@127.0.0.1:{proxy.ports[index]}")
            with pytest.raises(ProxyError):
                await wrong.connect("127.0.0.1", echo.port)
        with pytest.raises(ProxyError):
            await Proxy.from_url(f"{kind}://127.0.0.1:{proxy.ports[index]}").connect("127.0.0.1", echo.port)
    assert await proxy.ask(b"\x04\x01\x00\x50\x7f\0\0\x01me\0") == b"\0\x5b" + bytes(6)
    assert proxy.counters.dropped["proxy-wrong-password"] == 6
    await proxy.idle()


async def test_a_request_waits_for_a_session_and_is_refused_when_none_comes(proxied, echo, monkeypatch):
    monkeypatch.setattr(stream_dial, "SESSION_WAIT", 0.3)
    proxy = proxied()
    session, proxy.opener.session = proxy.opener.session, None
    answer = await proxy.ask(HELLO + connect_request("127.0.0.1", echo.port))
    assert answer[2:4] == b"\x05\x03"  # network unreachable
    monkeypatch.setattr(stream_dial, "SESSION_WAIT", 30.0)
    reader, writer = await proxy.connect()
    writer.write(HELLO + connect_request("127.0.0.1", echo.port) + b"x")
    await poll(lambda: proxy.counters.counted["proxy-connects"] == 2)
    proxy.opener.session = session
    proxy.service.session_made(proxy.driver.clock())
    assert (await reader.readexactly(13))[-1:] == b"x"
    writer.close()
    await proxy.idle()


async def test_connections_beyond_the_bound_are_closed_and_leave_room_again(proxied, echo):
    proxy = proxied(connections=2)
    held = [await proxy.connect() for _ in range(2)]
    await poll(lambda: proxy.service.connections == 2)
    assert await proxy.is_refused()
    assert proxy.counters.dropped["proxy-too-many-connections"] == 1
    for _, writer in held:
        writer.close()
    await proxy.idle()
    (await Proxy.from_url(f"socks5://127.0.0.1:{proxy.ports[0]}").connect("127.0.0.1", echo.port)).close()
    await proxy.idle()


async def test_few_open_files_mean_few_connections(proxied, few_files):
    proxy = proxied(connections=100)
    held = [await proxy.connect() for _ in range(2)]
    await poll(lambda: proxy.service.connections == 2)
    assert await proxy.is_refused()
    assert proxy.counters.dropped["proxy-too-many-connections"] == 1
    for _, writer in held:
        writer.close()


async def test_a_program_that_asks_for_nothing_is_cut_off(proxied, monkeypatch):
    monkeypatch.setattr(proxy_client, "NEGOTIATION_TIME", 0.1)
    proxy = proxied()
    reader, writer = await proxy.connect()
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), 30)
    writer.close()
    assert proxy.counters.dropped["proxy-request-timeout"] == 1


async def test_a_reset_of_the_program_reaches_the_destination(proxied, echo):
    proxy = proxied()
    reader, writer = await proxy.connect()
    writer.write(HELLO + connect_request("127.0.0.1", echo.port))
    await reader.readexactly(12)
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
    await poll(lambda: echo.resets)
    await proxy.idle()


async def test_other_hosts_are_refused_unless_they_are_named(proxied):
    with pytest.raises(HostError, match="--allow"):
        proxied(socks=(Endpoint("0.0.0.0", 0),))
    with pytest.raises(HostError, match="another program has it"):
        busy = proxied()
        proxied(socks=(Endpoint("127.0.0.1", busy.ports[0]),), http=())


async def test_a_web_browser_that_takes_the_socks_port_for_another_reads_why(proxied):
    answer = await proxied().ask(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ") and b"SOCKS" in answer
