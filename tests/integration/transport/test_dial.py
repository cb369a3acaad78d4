"""Failures between a URL and a leg, and the errors that the user sees."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import re
import socket
import ssl

import pytest
from websockets.server import ServerProtocol

from halftunnel_vpn.errors import ConfigError, RoadError
from halftunnel_vpn.transport.dial import DialOptions, dial
from halftunnel_vpn.transport.leg_phase import LegPhase

HOUR = datetime.timedelta(hours=1)


@pytest.fixture
def refusal(recorder):
    """Dials in vain; returns the reason after a look at the message."""

    async def failing(url, **options):
        owner = recorder()
        with pytest.raises(RoadError) as raised:
            await dial(url, DialOptions(**options), owner)
        message = str(raised.value)
        # One sentence that says what to do, and nothing of the secret path.
        assert re.search(r": |; ", message), message
        assert "\n" not in message
        assert not message.endswith(".")
        assert "a3f9" not in message
        assert owner.leg is None
        return raised.value.reason, message

    return failing


@pytest.fixture
async def answering():
    """A server that says something fixed to every request, and tells what it was asked."""
    stack = contextlib.AsyncExitStack()

    async def start(answer, *, tls=None):
        requests = []

        async def handle(reader, writer):
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                requests.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(answer)
                await writer.drain()
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

        server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
        await stack.enter_async_context(server)
        return server.sockets[0].getsockname()[1], requests

    yield start
    await stack.aclose()


# --- names and TCP ------------------------------------------------------------------------------------


async def test_a_name_that_nobody_knows(refusal):
    reason, message = await refusal("wss://no-such-host.invalid/a3f9")
    assert reason == "name-not-resolved"
    assert "no-such-host.invalid" in message


async def test_a_resolver_that_finds_nothing(refusal):
    async def nothing(host, port):
        return []

    assert (await refusal("ws://exit.example/a3f9", resolve=nothing))[0] == "name-not-resolved"


async def test_nothing_listens(refusal, free_port):
    reason, message = await refusal(f"wss://127.0.0.1:{free_port}/a3f9")
    assert reason == "connection-refused"
    assert f"port {free_port}" in message


async def test_a_resolver_that_never_answers(refusal):
    async def never(host, port):
        await asyncio.Event().wait()

    reason, message = await refusal("ws://exit.example/a3f9", resolve=never, connect_timeout=1.0)
    assert reason == "name-timeout" and "no resolver of this machine answers for exit.example" in message


async def test_a_host_that_does_not_answer(refusal):
    # A full backlog: the kernel ignores further greetings, as a firewall does.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        address = server.getsockname()
        with socket.create_connection(address), socket.socket() as second:
            second.setblocking(False)
            second.connect_ex(address)
            url = f"ws://127.0.0.1:{address[1]}/a3f9"
            assert (await refusal(url, connect_timeout=0.1))[0] == "connect-timeout"


async def test_the_first_address_that_answers_wins(start_exit, recorder, free_port):
    exit_server = await start_exit()

    async def several(host, port):
        return [("::1", free_port), ("127.0.0.1", free_port), ("127.0.0.1", port)]

    leg = await exit_server.dial(recorder(), resolve=several)
    assert leg.peer == "127.0.0.1"


async def test_an_address_that_is_silent_costs_a_quarter_of_a_second(start_exit, recorder):
    exit_server = await start_exit()
    with socket.create_server(("127.0.0.1", 0), backlog=0) as silent:
        with socket.create_connection(silent.getsockname()), socket.socket() as second:
            second.setblocking(False)
            second.connect_ex(silent.getsockname())

            async def both(host, port):
                return [silent.getsockname(), ("127.0.0.1", port)]

            begun = asyncio.get_running_loop().time()
            await exit_server.dial(recorder(), resolve=both)
            assert 0.2 < asyncio.get_running_loop().time() - begun < 20


async def test_no_more_than_eight_addresses_are_tried(start_exit, recorder):
    exit_server = await start_exit(tls=False, address="127.0.0.9")

    def addresses_from(first):
        async def many(host, port):
            return [(f"127.0.0.{number}", port) for number in range(first, 100)]

        return many

    with pytest.raises(RoadError) as raised:
        await exit_server.dial(recorder(), resolve=addresses_from(1))
    assert raised.value.reason == "connection-refused"
    leg = await exit_server.dial(recorder(), resolve=addresses_from(2))
    assert leg.peer == "127.0.0.9"


@pytest.mark.root
async def test_the_mark_is_on_the_socket(start_exit, recorder):
    exit_server = await start_exit()
    leg = await exit_server.dial(recorder(), mark=0x4854)
    sock = leg._transport.get_extra_info("socket")
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == 0x4854


@pytest.mark.root
async def test_a_mark_needs_rights(start_exit, recorder):
    exit_server = await start_exit()
    os.seteuid(65_534)
    try:
        with pytest.raises(RoadError, match="run as root") as raised:
            await exit_server.dial(recorder(), mark=1)
    finally:
        os.seteuid(0)
    assert raised.value.reason == "mark-not-permitted"


# --- TLS ------------------------------------------------------------------------------------------------


async def test_a_certificate_of_another_authority(start_exit, refusal, make_authority):
    exit_server = await start_exit(shown=make_authority("Somebody else").issue("localhost"))
    reason, message = await refusal(exit_server.url, ca_pem=exit_server.options.ca_pem)
    assert reason == "certificate-not-trusted"
    assert "profile" in message


async def test_the_systems_authorities_do_not_know_ours(start_exit, refusal):
    exit_server = await start_exit()
    assert (await refusal(exit_server.url))[0] == "certificate-not-trusted"


async def test_an_expired_certificate_points_to_the_clock(start_exit, refusal, authority):
    exit_server = await start_exit(shown=authority.issue("localhost", ends=-HOUR))
    reason, message = await refusal(exit_server.url, ca_pem=authority.pem)
    assert reason == "certificate-expired"
    assert "clock" in message


async def test_a_certificate_of_the_future_points_to_the_clock(start_exit, refusal, authority):
    exit_server = await start_exit(shown=authority.issue("localhost", begins=HOUR))
    reason, message = await refusal(exit_server.url, ca_pem=authority.pem)
    assert reason == "certificate-not-yet-valid"
    assert "clock" in message


async def test_a_certificate_for_another_name(answering, refusal, authority):
    port, _ = await answering(b"", tls=authority.issue("elsewhere.example").context())
    for host in ("localhost", "127.0.0.1"):
        reason, _ = await refusal(f"wss://{host}:{port}/a3f9", ca_pem=authority.pem)
        assert reason == "certificate-wrong-name"


async def test_a_pinned_certificate_needs_no_authority(start_exit, recorder, make_authority):
    shown = make_authority("Nobody").issue("localhost", ends=-HOUR)
    exit_server = await start_exit(shown=shown)
    leg = await exit_server.dial(recorder(), ca_pem=None, certificate_sha256=(bytes(32), shown.sha256))
    assert leg.writable


async def test_a_certificate_that_is_not_the_pinned_one_sees_no_request(
    answering, refusal, certificate, authority
):
    port, requests = await answering(b"", tls=certificate.context())
    other = authority.issue("localhost")
    for ca_pem in (None, authority.pem):
        reason, _ = await refusal(
            f"wss://localhost:{port}/a3f9", ca_pem=ca_pem, certificate_sha256=(other.sha256,)
        )
        assert reason == "certificate-not-pinned"
    assert requests == []


async def test_a_pinned_certificate_does_not_replace_the_authority(
    start_exit, refusal, certificate, make_authority
):
    exit_server = await start_exit()
    other = make_authority("Somebody else")
    options = {"ca_pem": other.pem, "certificate_sha256": (certificate.sha256,)}
    assert (await refusal(exit_server.url, **options))[0] == "certificate-not-trusted"


async def test_a_server_certificate_may_be_pinned_as_its_own_authority(start_exit, recorder, certificate):
    exit_server = await start_exit()
    assert (await exit_server.dial(recorder(), ca_pem=certificate.pem)).writable


async def test_a_port_that_speaks_no_tls(start_exit, refusal):
    exit_server = await start_exit(tls=False)
    reason, _ = await refusal(exit_server.url.replace("ws:", "wss:"))
    assert reason == "tls-failed"


async def test_a_port_that_greets_before_tls_can_begin(refusal):
    async def greet(reader, writer):
        writer.write(b"220 mail.example ESMTP\r\n")
        await reader.read(100)
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert (await refusal(f"wss://127.0.0.1:{port}/a3f9", connect_timeout=30))[0] == "tls-failed"


async def test_a_server_that_is_silent_in_tls(refusal, silent_port):
    reason, _ = await refusal(f"wss://localhost:{silent_port}/a3f9", connect_timeout=0.5)
    assert reason == "tls-timeout"


async def test_a_final_dot_is_neither_in_the_name_asked_for_nor_looked_for_in_the_certificate(
    authority, answering, refusal, loopback_resolver
):
    context = authority.issue("front.example").context()
    names = []
    context.sni_callback = lambda tls, name, context: names.append(name)
    port, _ = await answering(b"HTTP/1.1 404 Not Found\r\n\r\n", tls=context)
    url = f"wss://front.example.:{port}/a3f9"
    reason, _ = await refusal(url, ca_pem=authority.pem, resolve=loopback_resolver)
    assert (reason, names) == ("http-status-404", ["front.example"])


async def test_the_name_asked_for_and_the_host_header_may_differ_from_the_url(
    certificate, authority, answering, refusal, loopback_resolver
):
    """Seen at the server: SNI, Host, and a browser's headers in its order with those of the profile."""
    shown = authority.issue("front.example")
    context = shown.context()
    names = []
    context.sni_callback = lambda tls, name, context: names.append(name)
    port, requests = await answering(b"HTTP/1.1 404 Not Found\r\n\r\n", tls=context)
    reason, _ = await refusal(
        f"wss://hidden.example:{port}/a3f9?x=1",
        ca_pem=authority.pem,
        server_name="front.example",
        host_header="inner.example",
        headers={"user-agent": "Mozilla/5.0", "CF-Access-Client-Id": "me", "Accept-Language": ""},
        resolve=loopback_resolver,
    )
    assert reason == "http-status-404"
    assert names == ["front.example"]
    lines = requests[0].decode().split("\r\n")
    key = next(line for line in lines if line.startswith("Sec-WebSocket-Key: "))
    assert lines == [
        "GET /a3f9?x=1 HTTP/1.1",
        "Host: inner.example",
        "Connection: Upgrade",
        "Pragma: no-cache",
        "Cache-Control: no-cache",
        "User-Agent: Mozilla/5.0",
        "Upgrade: websocket",
        "Origin: https://inner.example",
        "Sec-WebSocket-Version: 13",
        "Accept-Encoding: gzip, deflate, br, zstd",
        "CF-Access-Client-Id: me",
        key,
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
        "",
        "",
    ]


async def test_http_1_1_alone_is_offered(certificate, authority, recorder):
    context = certificate.context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    chosen = asyncio.get_running_loop().create_future()

    async def note(reader, writer):
        chosen.set_result(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(note, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(RoadError):
            await dial(f"wss://localhost:{port}/", DialOptions(ca_pem=authority.pem), recorder())
        assert await chosen == "http/1.1"


# --- the upgrade ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "advice"),
    [(404, "path"), (403, "headers"), (302, "new address"), (502, "try again"), (200, "path")],
)
async def test_an_answer_that_is_no_upgrade(answering, refusal, status, advice):
    port, _ = await answering(f"HTTP/1.1 {status} Whatever\r\nContent-Length: 9\r\n\r\n".encode())
    reason, message = await refusal(f"ws://127.0.0.1:{port}/a3f9")
    assert reason == f"http-status-{status}"
    assert advice in message


async def test_a_real_listener_refuses_an_unknown_path(start_exit, refusal):
    exit_server = await start_exit()
    url = exit_server.url + "/wrong"
    assert (await refusal(url, ca_pem=exit_server.options.ca_pem))[0] == "http-status-404"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n", "not-a-websocket"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "not-a-websocket"),
        (
            b"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            "not-a-websocket",
        ),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000, "not-a-websocket"),
        (b"", "closed-in-handshake"),
        (b"HTTP/1.1 200 OK\r\n", "closed-in-handshake"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 404 No\r\n\r\n", "http-status-404"),
    ],
)
async def test_an_answer_that_is_wrong(answering, refusal, answer, expected):
    port, _ = await answering(answer)
    assert (await refusal(f"ws://127.0.0.1:{port}/a3f9"))[0] == expected


async def test_a_server_that_never_answers_the_upgrade(refusal, silent_port):
    reason, _ = await refusal(f"ws://127.0.0.1:{silent_port}/a3f9", connect_timeout=0.5)
    assert reason == "handshake-timeout"


async def test_early_hints_and_an_upgrade_in_one_piece_with_records(recorder):
    async def answer(reader, writer):
        websocket = ServerProtocol()
        websocket.receive_data(await reader.readuntil(b"\r\n\r\n"))
        websocket.send_response(websocket.accept(websocket.events_received()[0]))
        websocket.send_binary(b"early")
        websocket.send_binary(bytes(65_536))
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n" + b"".join(websocket.data_to_send()))
        await reader.read()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        owner = recorder()
        leg = await dial(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/", DialOptions(), owner)
        assert await owner.received(2) == [b"early", bytes(65_536)]
        leg.abort()
        await owner.closed()


@pytest.mark.parametrize("delay", [None, 0, 0.0005, 0.001, 0.0015, 0.002, 0.0025, 0.003, 0.004, 0.005])
async def test_a_dial_that_is_cancelled_at_any_moment_leaves_nothing(exit_server, recorder, delay):
    owner = recorder()
    dialling = asyncio.create_task(exit_server.dial(owner))
    if delay is not None:
        await asyncio.sleep(delay)
    dialling.cancel()
    await asyncio.gather(dialling, return_exceptions=True)
    if owner.leg is not None:
        owner.leg.abort()
        assert await owner.closed() == "aborted"
        assert owner.leg.state >= LegPhase.DEAF


# --- what cannot be meant -----------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["https://x/", "wss://", "x", "wss://x:99999/", "wss://x/#part"])
async def test_a_url_that_is_none(url, recorder):
    with pytest.raises(ConfigError, match="wss://HOST/PATH"):
        await dial(url, DialOptions(), recorder())


async def test_a_pinned_authority_that_is_none(recorder):
    with pytest.raises(ConfigError, match="PEM"):
        await dial("wss://localhost/", DialOptions(ca_pem="nonsense"), recorder())


@pytest.mark.parametrize(
    "options",
    [
        {"certificate_sha256": (b"short",)},
        {"headers": {"X\r\nInjected": "y"}},
        {"headers": {"X": "y\r\nInjected: z"}},
        {"headers": {"connection": "close"}},
        {"host_header": "x\r\n"},
        {"proxy": "socks5://x:1"},
    ],
)
def test_options_that_cannot_be_meant(options):
    with pytest.raises(ConfigError):
        DialOptions(**options)
