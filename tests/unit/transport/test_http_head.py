"""Heads of requests and responses, whole, in pieces, and broken."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halftunnel_vpn.errors import PeerError
from halftunnel_vpn.transport.http_head import MAX_HEAD, HeadReader, header, parse_request, parse_status

HEAD = b"GET /x HTTP/1.1\r\nHost: a\r\nX-Long:  some value \r\n\r\n"


@given(st.lists(st.integers(0, len(HEAD) + 5), max_size=8))
def test_a_head_is_found_however_it_is_cut(cuts):
    data = HEAD + b"after"
    edges = [0, *sorted(cuts), len(data)]
    reader = HeadReader()
    head = rest = b""
    for begin, end in pairwise(edges):
        if head:
            rest += data[begin:end]
        elif (whole := reader.feed(data[begin:end])) is not None:
            head, rest = whole
    assert (head, rest) == (HEAD, b"after")


def test_bare_newlines_end_a_head_too():
    assert HeadReader().feed(b"GET / HTTP/1.0\n\nrest") == (b"GET / HTTP/1.0\n\n", b"rest")


@pytest.mark.parametrize("ending", [b"", b"\r\n\r\n"])
def test_a_head_has_a_bound(ending):
    reader = HeadReader()
    assert reader.feed(b"x" * MAX_HEAD) is None
    with pytest.raises(PeerError) as raised:
        reader.feed(b"x" + ending)
    assert raised.value.reason == "http-head-too-long"


def test_a_requests_parts():
    request = parse_request(HEAD)
    assert (request.method, request.target, request.version) == ("GET", "/x", "HTTP/1.1")
    assert request.values("x-long") == ["some value"]
    assert request.values("absent") == []
    assert not request.wants_websocket


def test_values_of_a_repeated_header_keep_their_order():
    request = parse_request(b"GET / HTTP/1.0\r\nX: 1\r\ny: 2\r\nx: 3\r\n\r\n")
    assert request.values("x") == ["1", "3"]


def test_a_header_of_a_response_is_found_among_lines_that_are_none():
    head = b"HTTP/1.1 302 Found\r\nno header\r\nX: 1\r\nLocation:  /a \r\nlocation: /b\r\n\r\n"
    assert header(head, "location") == "/a" and header(head, "x") == "1" and header(head, "y") is None


def test_an_upgrade_is_recognised_whatever_its_case():
    request = parse_request(b"GET / HTTP/1.1\r\nHost: x\r\nUPGRADE: WebSocket\r\n\r\n")
    assert request.wants_websocket


@pytest.mark.parametrize(
    "head",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1 more\r\nHost: x\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"get / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\xe4 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.2\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nName with space: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: nul\x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n: no name\r\n\r\n",
    ],
)
def test_requests_that_are_none(head):
    with pytest.raises(PeerError) as raised:
        parse_request(head)
    assert raised.value.reason == "http-malformed"


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data):
    for action in (HeadReader().feed, parse_request, parse_status, start):
        try:
            action(data)
        except PeerError as error:
            assert error.reason.startswith("http-")


def start(data: bytes) -> None:
    reader = HeadReader()
    if reader.feed(data) is None:
        reader.check_request_start()


@pytest.mark.parametrize("data", [b"\x16\x03", b" GET", b"GET / HTTP/3\r\n", b"A" * 40, b"\r\n"])
def test_what_cannot_become_a_request_is_known_early(data):
    with pytest.raises(PeerError):
        start(data)


@pytest.mark.parametrize("data", [b"G", b"GET", b"GET ", b"GET /lo", b"GET / HTTP/1.1\r\nHo"])
def test_what_may_become_a_request_is_waited_for(data):
    start(data)


@pytest.mark.parametrize(
    ("head", "status"),
    [(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", 101), (b"HTTP/1.0 407\r\nX: y\r\n\r\n", 407)],
)
def test_a_responses_status(head, status):
    assert parse_status(head) == status


@pytest.mark.parametrize("head", [b"", b"HTTP/2 200\r\n\r\n", b"HTTP/1.1 20 OK\r\n\r\n", b"200 OK\r\n\r\n"])
def test_responses_that_are_none(head):
    with pytest.raises(PeerError):
        parse_status(head)
