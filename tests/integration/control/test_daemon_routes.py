"""The daemon's routes over a real Unix socket."""

from __future__ import annotations

import asyncio
import json
import os

import pytest

from halftunnel_vpn.control import requests
from halftunnel_vpn.control.daemon_routes import MAX_PROFILE


async def call(path, method, target, body=None):
    """Status and JSON of one request."""
    answer = await asyncio.to_thread(requests.ask, str(path), method, target, body=body)
    return answer.status, json.loads(answer.body)


@pytest.fixture
def socket(tmp_path):
    return tmp_path / "control.sock"


async def test_commands_reach_the_daemon(serve_daemon, socket, store, profile_text):
    store.put("home", profile_text)
    async with serve_daemon() as daemon:
        assert await call(socket, "POST", "/v1/up") == (202, {"begun": True})
        assert await call(socket, "POST", "/v1/up", b'{"profile": "home"}') == (202, {"begun": True})
        for command in ("reconnect", "reload", "down"):
            assert await call(socket, "POST", f"/v1/{command}") == (202, {"begun": True})
        assert await call(socket, "POST", "/v1/portal", b'{"seconds": 60}') == (202, {"begun": True})
        assert await call(socket, "POST", "/v1/repair") == (
            200,
            {"repaired": ["the route table 18516 was removed"]},
        )
        assert await call(socket, "POST", "/v1/programs", b'{"list": "only"}') == (200, {"pid": os.getpid()})
        assert daemon.told.pop() == (os.getpid(), "only")
        answer = (200, {"file": "/var/lib/halftunnel/audit.jsonl"})
        assert await call(socket, "POST", "/v1/audit", b'{"seconds": 60}') == answer
        assert daemon.told.pop() == ("record", 60.0)
        status, told = await call(socket, "GET", "/v1/status")
        assert status == 200 and told["state"] == "disconnected" and told["profile"] == "home"
    assert daemon.told == [("up", "home"), ("up", "home"), "reconnect", "reload", "down", ("portal", 60.0)]


async def test_commands_about_exits_reach_the_daemon(serve_daemon, socket, store, profile_text):
    store.put("home", profile_text)
    async with serve_daemon() as daemon:
        code, answer = await call(socket, "POST", "/v1/switch", b"{}")
        assert (code, answer["error"]) == (409, "nothing is up; 'htvpn up' connects")
        for body in (b'{"exit": "home"}', b'{"profile": "home", "fastest": true}'):
            assert (await call(socket, "POST", "/v1/up", body))[0] == 202
        for body in (b'{"exit": "home"}', b'{"fastest": true}', b""):
            assert (await call(socket, "POST", "/v1/switch", body))[0] == 202
        code, answer = await call(socket, "POST", "/v1/switch", b'{"exit": "gone"}')
        assert code == 409 and "home stays in use" in answer["error"]
        code, answer = await call(socket, "GET", "/v1/exits?profile=home")
        assert code == 200 and [each["name"] for each in answer["exits"]] == ["home"]
        assert (await call(socket, "GET", "/v1/exits"))[0] == 200
    assert daemon.told == [
        *(("up", "home", "home", False), ("up", "home", None, True)),
        *(("switch", "home", False), ("switch", None, True), ("switch", None, False)),
        *(("exits", "home"), ("exits", None)),
    ]


async def test_an_exit_is_added_to_a_profile_and_only_checked_where_that_is_asked(
    serve_daemon, socket, store, profile_text
):
    store.put("home", profile_text)
    other = profile_text.encode()
    async with serve_daemon():
        place = "/v1/profiles/home/exits"
        assert (await call(socket, "POST", f"{place}?exit=second&keep=no", other))[0] == 200
        assert len(store.load("home").exits) == 1
        assert (await call(socket, "POST", f"{place}?exit=second", other))[0] == 200
        assert [entry.name for entry in store.load("home").exits][1:] == ["second"]
        code, answer = await call(socket, "POST", f"{place}?exit=second", other)
        assert code == 400 and "has an exit second already" in answer["error"]


@pytest.mark.parametrize(
    ("method", "target", "body", "status", "sentence"),
    [
        ("POST", "/v1/up", b"[]", 400, "the body must be one JSON object"),
        ("POST", "/v1/up", b"{", 400, "the body must be one JSON object"),
        ("POST", "/v1/up", b"[" * 60_000, 400, "the body must be one JSON object"),
        ("POST", "/v1/up", b'{"profile": 1}', 400, "profile must be a name"),
        ("POST", "/v1/up", b'{"profile": "../../shadow"}', 400, "is not a valid profile name"),
        ("POST", "/v1/up", b'{"profile": "away"}', 400, "there is no profile away"),
        ("POST", "/v1/up", b"", 400, "there is no profile in"),
        ("POST", "/v1/up", b'{"exit": 1}', 400, "exit must be a name"),
        ("POST", "/v1/switch", b'{"fastest": 1}', 400, "fastest must be true or false"),
        ("POST", "/v1/profiles/home/exits", b"x", 400, "there is no profile home"),
        ("POST", "/v1/reconnect", b"", 409, "nothing is up; 'htvpn up' connects"),
        ("POST", "/v1/audit", b'{"seconds": 0}', 400, "seconds must be a number above 0, to 86400"),
        ("POST", "/v1/portal", b'{"seconds": "x"}', 400, "seconds must be a number from 0 to 3600"),
        ("POST", "/v1/portal", b'{"seconds": true}', 400, "seconds must be a number from 0 to 3600"),
        ("POST", "/v1/portal", b'{"seconds": 1e999}', 400, "seconds must be a number from 0 to 3600"),
        ("POST", "/v1/programs", b'{"list": "all"}', 400, 'list must be "excluded" or "only"'),
        ("GET", "/v1/events?since=x", None, 400, "since and wait must be numbers"),
        ("GET", "/v1/events?since=1&wait=nan", None, 400, "since must not be negative"),
        ("GET", "/v1/events?since=-1", None, 400, "since must not be negative"),
        ("GET", "/v1/logs?wait=900", None, 400, "wait be from 0 to 20 seconds"),
        ("PUT", "/v1/profiles/home", b"name = 1", 400, "home has "),
        ("PUT", "/v1/profiles/home", b"\xff", 400, "is not UTF-8"),
        ("PUT", "/v1/profiles/.default", b"x", 400, "is not a valid profile name"),
        ("PUT", "/v1/profiles/home", b"x" * (MAX_PROFILE + 1), 413, "the body is longer"),
        ("DELETE", "/v1/profiles/home", None, 400, "there is no profile home"),
        ("POST", "/v1/profiles/home/use", None, 400, "there is no profile home"),
        ("GET", "/v1/profiles/home", None, 405, "not supported for this path"),
        ("GET", "/v1/nothing", None, 404, "no such path"),
        ("GET", "/v1/profiles/a/b/c", None, 404, "no such path"),
    ],
)
async def test_what_cannot_be_done_is_one_sentence(
    serve_daemon, socket, method, target, body, status, sentence
):
    async with serve_daemon() as daemon:
        code, answer = await call(socket, method, target, body)
    assert code == status
    assert list(answer) == ["error"] and sentence in answer["error"]
    assert daemon.told == []


async def test_profiles_are_kept_listed_chosen_and_removed(serve_daemon, socket, store, profile_text):
    async with serve_daemon():
        for name in ("office", "home"):
            assert (await call(socket, "PUT", f"/v1/profiles/{name}", profile_text.encode()))[0] == 200
        (store.directory / "broken.toml").write_text("name = 1")
        assert (await call(socket, "POST", "/v1/profiles/office/use"))[0] == 200
        _, told = await call(socket, "GET", "/v1/profiles")
        assert [(entry["name"], entry["chosen"]) for entry in told["profiles"]] == [
            ("broken", False), ("home", False), ("office", True),
        ]  # fmt: skip
        assert told["profiles"][0]["problem"].startswith(str(store.directory / "broken.toml"))
        assert told["profiles"][1]["problem"] is None
        assert (await call(socket, "DELETE", "/v1/profiles/office"))[0] == 200
        assert store.names() == ["broken", "home"]
    modes = {path.stat().st_mode & 0o777 for path in store.directory.iterdir() if path.stem != "broken"}
    assert modes == {0o600}


async def test_events_are_waited_for(serve_daemon, socket):
    async with serve_daemon() as daemon:
        poll = asyncio.create_task(call(socket, "GET", "/v1/events?since=0"))
        await daemon.polled.wait()
        daemon.become("connecting")
        assert [event["state"] for event in (await poll)[1]["events"]] == ["connecting"]
        daemon.become("connected", "all is well")
        _, told = await call(socket, "GET", "/v1/events?since=1")
        assert [(e["serial"], e["state"], e["sentence"]) for e in told["events"]] == [
            (2, "connected", "all is well")
        ]
        assert (await call(socket, "GET", "/v1/events?since=2&wait=0"))[1] == {"events": []}
        # A reader that knew an earlier process gets everything.
        assert len((await call(socket, "GET", "/v1/events?since=99&wait=0"))[1]["events"]) == 2


async def test_the_log_is_a_bounded_ring(serve_daemon, socket):
    async with serve_daemon() as daemon:
        for number in range(9):
            daemon.lines.append(f"line {number}")
        _, told = await call(socket, "GET", "/v1/logs?since=0")
        assert [line["message"] for line in told["lines"]] == ["line 5", "line 6", "line 7", "line 8"]
        assert [line["serial"] for line in told["lines"]] == [6, 7, 8, 9]
        assert (await call(socket, "GET", "/v1/logs?since=8"))[1]["lines"][0]["serial"] == 9
