"""What the log says, and what it keeps to itself."""

from __future__ import annotations

import io
import json
import logging
import re

import pytest

from halftunnel_vpn.observe import log_format

log = logging.getLogger("halftunnel_vpn.client.session")


@pytest.fixture(autouse=True)
def restored():
    root = logging.getLogger(log_format.ROOT)
    before = root.handlers[:], root.level, root.propagate
    yield
    root.handlers[:], root.level, root.propagate = before[0], before[1], before[2]


def written(level: str, form: str, speak) -> str:
    stream = io.StringIO()
    log_format.configure(level, form, stream)
    speak()
    return stream.getvalue()


def test_a_line_of_text_carries_time_level_place_and_numbers():
    line = written(
        "info", "text", lambda: log.info("stream %s", "opened", extra={"session": 3, "stream": 17})
    )
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO client\.session: stream opened session=3 stream=17\n",
        line,
    )


def test_a_line_of_json_is_one_object():
    text = written("info", "json", lambda: log.warning("two\nlines", extra={"session": 3, "reason": "x"}))
    assert text.count("\n") == 1
    entry = json.loads(text)
    assert entry.pop("time").endswith("Z")
    assert entry == {
        "level": "warning",
        "logger": "halftunnel_vpn.client.session",
        "message": "two\nlines",
        "session": 3,
        "reason": "x",
    }


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_is_private_appears_at_debug_alone(form):
    def speak():
        log.info("stream opened", extra={"stream": 1, "private": {"destination": "secret.example.org"}})

    assert "secret.example.org" not in written("info", form, speak)
    assert "secret.example.org" in written("debug", form, speak)


def test_levels_below_the_chosen_one_are_silent():
    assert written("warning", "text", lambda: log.info("hello")) == ""
    assert "hello" in written("warning", "text", lambda: log.error("hello"))


def test_a_peer_can_forge_no_line_and_move_no_cursor():
    text = written(
        "info", "text", lambda: log.info("said %s", "x\n2026 INFO all is well\x1b[2J", extra={"peer": "a\nb"})
    )
    assert text.count("\n") == 1 and "\x1b" not in text


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_unforeseen_failure_comes_with_its_traceback(form):
    def speak():
        try:
            raise ValueError("oh")
        except ValueError:
            log.exception("failed")

    text = written("info", form, speak)
    assert "Traceback" in text and "ValueError: oh" in text


def test_configuring_twice_does_not_say_everything_twice():
    log_format.configure("info", "text", io.StringIO())
    assert written("info", "text", lambda: log.info("once")).count("once") == 1


def test_a_peer_gets_one_line_a_minute_and_the_rest_is_counted():
    stream = io.StringIO()
    log_format.configure("info", "text", stream)
    peers = log_format.PeerLog(log)

    assert peers.refused("192.0.2.1", "handshake-bad-tag", now=0.0)
    assert not any(peers.refused("192.0.2.1", "handshake-bad-tag", now=t) for t in range(1, 60))
    assert peers.refused("192.0.2.2", "http-not-websocket", now=30.0), "another peer has a minute of its own"
    assert peers.refused("192.0.2.1", "handshake-bad-tag", now=60.0)

    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert "refused: handshake-bad-tag peer=192.0.2.1" in lines[0].replace(" reason=handshake-bad-tag", "")
    assert "(and 59 more since the last line)" in lines[2]


def test_the_memory_of_peers_is_bounded_and_forgets_the_oldest():
    log_format.configure("info", "text", io.StringIO())
    peers = log_format.PeerLog(log, max_peers=2)
    assert peers.refused("a", "x", now=0.0)
    assert peers.refused("b", "x", now=1.0)
    assert peers.refused("c", "x", now=2.0)
    assert not peers.refused("b", "x", now=3.0)
    assert peers.refused("a", "x", now=4.0), "a made room for c"
    assert len(peers._peers) == 2


def test_addresses_of_one_ipv6_network_are_one_peer():
    log_format.configure("info", "text", io.StringIO())
    peers = log_format.PeerLog(log)
    assert peers.refused("2001:db8::1", "x", now=0.0)
    assert not peers.refused("2001:db8::2", "x", now=1.0)
    assert peers.refused("2001:db8:0:1::1", "x", now=1.0)
    assert peers.refused("::no-address", "x", now=1.0), "whatever it is, it is one"


def test_many_peers_get_no_more_lines_than_a_minute_has():
    stream = io.StringIO()
    log_format.configure("info", "text", stream)
    peers = log_format.PeerLog(log)
    for number in range(5000):
        peers.refused(f"192.0.{number >> 8}.{number & 255}", "x", now=10.0 + number / 1000)
    assert len(stream.getvalue().splitlines()) == log_format.MAX_LINES
    assert peers.refused("198.51.100.1", "x", now=71.0)
    assert f"refused: {5000 - log_format.MAX_LINES} more of other peers" in stream.getvalue().splitlines()[-2]
