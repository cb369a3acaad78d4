"""A visitor who is not a client sees an ordinary web server: tested with a real curl and with raw bytes."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import http.client
import re
import ssl
import subprocess
import time

import pytest

from halftunnel_vpn.transport.decoy_site import Site

UPGRADE = (
    "GET {path} HTTP/1.1\r\n"
    "Host: localhost\r\n"
    "Upgrade: websocket\r\n"
    "Connection: Upgrade\r\n"
    "Sec-WebSocket-Key: {key}\r\n"
    "Sec-WebSocket-Version: 13\r\n"
    "\r\n"
)
GOOD_KEY = "dGhlIHNhbXBsZSBub25jZQ=="


@pytest.fixture
def curl(authority, tmp_path):
    """Runs curl; returns the status, the headers in lower case, and the body."""
    bundle = tmp_path / "ca.pem"
    bundle.write_text(authority.pem)

    async def run(*arguments):
        command = ["curl", "--silent", "--show-error", "--include", "--max-time", "60", "--cacert", bundle]
        done = await asyncio.to_thread(
            subprocess.run, [*command, *arguments], capture_output=True, timeout=90, check=True
        )
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        status_line, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        return int(status_line.split()[1]), headers, body

    return run


@pytest.fixture
def talk():
    """Sends bytes over plain TCP and returns everything that comes until the other side closes."""

    async def send(port, *pieces):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for piece in pieces:
                writer.write(piece.encode() if isinstance(piece, str) else piece)
                await writer.drain()
            async with asyncio.timeout(30):
                return await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()

    return send


def without_date(response):
    return re.sub(rb"Date: [^\r]*", b"", response)


async def test_curl_sees_a_page(exit_server, curl):
    status, headers, body = await curl(exit_server.http_url + "/")
    assert status == 200
    assert b"It works" in body
    assert "server" not in headers
    assert headers["content-type"] == "text/html"
    assert int(headers["content-length"]) == len(body)
    date = email.utils.parsedate_to_datetime(headers["date"])
    assert abs(date.timestamp() - time.time()) < 60


@pytest.mark.parametrize("tls", [True, False])
async def test_a_large_page_arrives_whole(start_exit, curl, tls):
    page = bytes(range(256)) * 20_000
    exit_server = await start_exit(tls=tls, site=Site(page=page))
    assert (await curl(exit_server.http_url))[2] == page


async def test_curl_sees_no_body_with_head(exit_server, curl):
    status, headers, body = await curl("--head", exit_server.http_url + "/")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) > 0


async def test_the_page_is_the_owners(start_exit, curl):
    exit_server = await start_exit(
        tls=False, site=Site(page=b"<p>Bakery</p>", content_type="text/plain", server="Apache")
    )
    status, headers, body = await curl(exit_server.http_url + "/?x=1")
    assert (status, body, headers["server"]) == (200, b"<p>Bakery</p>", "Apache")
    assert headers["content-type"] == "text/plain"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
async def test_the_secret_path_is_like_one_that_does_not_exist(start_exit, talk, method, secret_path):
    exit_server = await start_exit(tls=False)
    answers = {
        without_date(await talk(exit_server.port, f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
        for path in (secret_path, "/nothing/here", secret_path + "/", secret_path + "?a=b")
    }
    assert len(answers) == 1
    expected = b"404" if method in ("GET", "HEAD") else b"405"
    assert answers.pop().startswith(b"HTTP/1.1 " + expected)


async def test_curl_finds_nothing_on_the_secret_path(exit_server, curl, secret_path):
    status, headers, body = await curl(exit_server.http_url + secret_path)
    assert (status, headers) == (404, {**headers, "content-type": "text/html"})
    assert b"404 Not Found" in body


async def test_upgrades_that_are_wrong_are_like_an_unknown_path(start_exit, talk, secret_path):
    exit_server = await start_exit(tls=False)
    unknown = await talk(exit_server.port, "GET /unknown HTTP/1.1\r\nHost: x\r\n\r\n")
    assert unknown.startswith(b"HTTP/1.1 404 Not Found\r\n")
    good = UPGRADE.format(path=secret_path, key=GOOD_KEY)
    for request in (
        UPGRADE.format(path="/unknown", key=GOOD_KEY),
        UPGRADE.format(path=secret_path.upper(), key=GOOD_KEY),
        UPGRADE.format(path=secret_path + "?", key=GOOD_KEY),
        UPGRADE.format(path=secret_path, key="short"),
        good.replace("Version: 13", "Version: 8"),
        good.replace("Connection: Upgrade", "Connection: close"),
        good.replace("Sec-WebSocket-Key", "X-Key"),
        good.replace("HTTP/1.1", "HTTP/1.0"),
        good.replace("\r\n\r\n", "\r\nContent-Length: 5\r\n\r\nhello"),
    ):
        assert without_date(await talk(exit_server.port, request)) == without_date(unknown), request
    assert exit_server.listener.counters.dropped["upgrade-refused"] == 9
    assert exit_server.owners.empty()


async def test_a_post_with_a_large_body_gets_its_answer(exit_server, curl, tmp_path):
    body = tmp_path / "body"
    body.write_bytes(bytes(3_000_000))
    for hurry in ([], ["--header", "Expect:"]):  # curl asks first, or sends at once
        status, headers, _ = await curl("--data-binary", f"@{body}", *hurry, exit_server.http_url + "/")
        assert status == 405
        assert headers["allow"] == "GET, HEAD"


async def test_a_visitor_that_says_all_before_it_listens_gets_its_answer(exit_server, authority):
    def visit(body):
        connection = http.client.HTTPConnection("localhost", exit_server.port, timeout=60)
        if exit_server.http_url.startswith("https"):
            context = ssl.create_default_context(cadata=authority.pem)
            connection = http.client.HTTPSConnection(
                "localhost", exit_server.port, timeout=60, context=context
            )
        with contextlib.closing(connection):
            connection.request("POST", "/", body=body)
            answer = connection.getresponse()
            return answer.status, len(answer.read())

    def in_pieces():
        for _ in range(30):
            yield bytes(100_000)
            time.sleep(0.002)

    whole, chunked = [await asyncio.to_thread(visit, body) for body in (bytes(3_000_000), in_pieces())]
    assert whole == chunked and whole[0] == 405


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS greeting
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"get / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\r\n",
        b"GET / HTTP/2.0\r\n",
        b"GET / HTTP/1.1\r\n\r\n",  # no Host
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n folded: yes\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x00\x00\x00\x00",
    ],
)
async def test_what_is_no_http_gets_a_400(start_exit, talk, request_bytes):
    exit_server = await start_exit(tls=False)
    answer = await talk(exit_server.port, request_bytes)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert exit_server.listener.counters.dropped["http-malformed"] == 1


async def test_a_head_without_end_gets_a_431(start_exit, talk):
    exit_server = await start_exit(tls=False)
    pieces = ["GET / HTTP/1.1\r\n", *(f"X-{n}: {'y' * 1000}\r\n" for n in range(20))]
    answer = await talk(exit_server.port, *pieces)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert exit_server.listener.counters.dropped["http-head-too-long"] == 1


async def test_old_and_odd_requests_are_served(start_exit, talk):
    exit_server = await start_exit(tls=False)
    for request in (
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\nHost: x\n\n",
        "GET /?query HTTP/1.1\r\nHost: x\r\nAccept:\r\n\r\n",
    ):
        assert (await talk(exit_server.port, request)).startswith(b"HTTP/1.1 200 OK\r\n"), request


async def test_a_request_in_single_bytes_is_served(start_exit, talk):
    exit_server = await start_exit(tls=False)
    request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    assert (await talk(exit_server.port, *request)).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_http_spoken_to_a_tls_port_is_dropped_and_counted(start_exit, talk):
    exit_server = await start_exit(tls=True)
    try:
        answer = await talk(exit_server.port, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    except ConnectionResetError:
        answer = b""
    assert b"HTTP" not in answer
    assert exit_server.listener.counters.dropped["tls-failed"] == 1


async def test_strangers_do_not_disturb_a_leg(start_exit, talk):
    exit_server = await start_exit(tls=False)
    leg, _, _, other = await exit_server.pair()
    for _ in range(20):
        await talk(exit_server.port, b"\xff\xfe")
    leg.send(b"still here")
    assert await other.received(1) == [b"still here"]
