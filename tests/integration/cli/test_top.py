"""`htvpn top` on the real control service: by textual's Pilot, and in a real terminal (tmux)."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from lab.terminal import Terminal

from halftunnel_vpn.cli.top import async_requests
from halftunnel_vpn.cli.top.app import TopApp
from halftunnel_vpn.control.flow_schema import FlowStatus
from halftunnel_vpn.errors import HostError

PATIENCE = 60.0


def road(*, circuit: str = "closed") -> dict[str, object]:
    leg = {
        "number": 0, "domain": "a.example.org", "address": "192.0.2.7", "round_trip": 0.0123, "age": 3725,
        "sent_bytes": 1, "received_bytes": 1,
    }  # fmt: skip
    return {
        "urls": ["wss://a.example.org", "wss://spare.example.net"],
        "circuits": ["closed", circuit],
        "legs": 1, "open_legs": [leg], "sent_bytes": 1, "received_bytes": 1, "sent_messages": 1,
        "received_messages": 1,
    }  # fmt: skip


def flow(program: str, pid: int, count: int) -> list[FlowStatus]:
    return [
        FlowStatus(
            kind="tcp", port=4000 + number, program=program, pid=pid, user=0,
            destination=f"192.0.2.{number}:443", sent_bytes=1, received_bytes=1,
        )
        for number in range(count)
    ]  # fmt: skip


@pytest.fixture
def served(serve_daemon, tmp_path):
    """A connected client with two programs, at the socket."""

    @asynccontextmanager
    async def serve():
        async with serve_daemon() as daemon:
            daemon.profile = "home"
            daemon.become("connected")
            daemon.more = {"upstream": road(circuit="open"), "downstream": road()}
            daemon.open_flows = flow("curl", 4711, 1) + flow("firefox", 4712, 3)
            daemon.lines.append("the tunnel is up")
            yield daemon

    return serve


@pytest.fixture
def socket(tmp_path):
    return str(tmp_path / "control.sock")


def screen_of(app: TopApp) -> str:
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips())


async def until(app, pilot, *parts: str) -> str:
    """The screen, once it shows all ``parts``."""
    deadline = time.monotonic() + PATIENCE
    while not all(part in screen_of(app) for part in parts):
        assert time.monotonic() < deadline, f"no {parts} in\n{screen_of(app)}"
        await pilot.pause(0.05)
    return screen_of(app)


async def test_everything_is_on_one_screen_and_keys_work(served, socket):
    async with served() as daemon:
        app = TopApp(socket)
        async with app.run_test(size=(80, 24)) as pilot:
            shown = await until(app, pilot, "CONNECTED, home", "firefox", "the tunnel is up")
            assert "up   a.example.org" in shown and "down spare.example.net" in shown
            assert "12.3 ms" in shown and "open" in shown and "4712" in shown and "192.0.2.0:443" in shown
            await until(app, pilot, "q Quit", "h Help")

            daemon.become("reconnecting", "the path is lost")
            await until(app, pilot, "RECONNECTING")
            daemon.lines.append("another line")
            await until(app, pilot, "another line")

            assert shown.index("firefox") < shown.index("curl"), "by rate, then by number of flows"
            await pilot.press("s", "s")
            shown = await until(app, pilot, "(by name)")
            assert shown.index("curl") < shown.index("firefox")

            await pilot.press("r")
            await until(app, pilot, "reopening every connection")
            await pilot.press("d")
            await until(app, pilot, "Disconnect this host?")
            await pilot.press("n")
            await pilot.press("d")
            await until(app, pilot, "Disconnect this host?")
            await pilot.press("y")
            await until(app, pilot, "DISCONNECTED")
            await pilot.press("u")
            await until(app, pilot, "Connect this host")
            await pilot.press("y")
            await until(app, pilot, "! there is no profile in")  # the daemon's own sentence
            await pilot.press("h")
            await until(app, pilot, "reopen every connection", "Destinations are shown to root")
            await pilot.press("escape")
            await until(app, pilot, "PATH")
            assert daemon.told == ["reconnect", "down"], "nothing without a yes"
            await pilot.press("q")
        assert app.return_code == 0


async def test_nothing_arrives_once_it_ends(served, socket):
    async with served():
        app = TopApp(socket)
        async with app.run_test(size=(80, 24)) as pilot:
            await until(app, pilot, "CONNECTED")
            app.exit()
            assert app._tasks and all(task.cancelling() for task in app._tasks), (
                "no answer finds its screen gone"
            )


async def test_a_narrow_screen_is_paused_and_grows(served, socket):
    async with served():
        app = TopApp(socket)
        async with app.run_test(size=(60, 20)) as pilot:
            await until(app, pilot, "CONNECTED")
            await pilot.press("p")
            await until(app, pilot, "(paused)")
            await pilot.press("p")
            shown = await until(app, pilot, "CONNECTED, home")
            assert max(len(line.rstrip()) for line in shown.splitlines()) <= 60
            await pilot.resize_terminal(100, 30)
            assert len((await until(app, pilot, "firefox")).splitlines()) == 30


async def test_a_client_that_ends_and_comes_back(served, socket):
    app = TopApp(socket)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(app, pilot, "NO CLIENT: no client answers at")
        async with served():
            await until(app, pilot, "CONNECTED", "firefox")
        shown = await until(app, pilot, "NO CLIENT")
        assert "firefox" not in shown, "what is not known any more is not shown"
        async with served():
            await until(app, pilot, "CONNECTED", "firefox")


async def test_an_idle_screen_asks_once_a_second_at_most(served, socket, monkeypatch):
    asked: dict[str, list[float]] = {}
    ask = async_requests.ask

    async def noting(path, method, target, content=None, *, wait=0.0):
        asked.setdefault(target.partition("?")[0], []).append(time.monotonic())
        return await ask(path, method, target, content, wait=wait)

    monkeypatch.setattr(async_requests, "ask", noting)
    async with served():
        app = TopApp(socket)
        async with app.run_test(size=(80, 24)) as pilot:
            await until(app, pilot, "CONNECTED", "firefox")
            while len(asked["/v1/status"]) < 4:
                await pilot.pause(0.1)
            await pilot.press("p")
    times = asked["/v1/status"]
    assert all(after - before > 0.9 for before, after in pairwise(times[1:]))
    assert len(asked["/v1/flows"]) <= 3 and len(asked["/v1/logs"]) <= 3 and len(asked["/v1/events"]) <= 3


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "is not an htvpn client of this version"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", "has gone"),
        (b"HTTP/1.1 409 No\r\nContent-Length: 16\r\n\r\n" + b'{"error": "why"}', "why"),
        (b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\n{}", "does not serve that"),
        (b"SSH-2.0\r\n\r\n", "has gone"),
        (b"", "has gone"),
    ],
)
async def test_what_is_not_a_client_is_one_sentence(tmp_path, answer, sentence):
    async def reply(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_unix_server(reply, str(tmp_path / "other.sock"))
    try:
        with pytest.raises(HostError, match=re.escape(sentence)):
            await async_requests.ask(str(tmp_path / "other.sock"), "GET", "/v1/status")
    finally:
        server.close()


def test_without_a_terminal_it_says_one_sentence(htvpn):
    done = htvpn("top")
    assert done.returncode == 2
    assert done.stderr == "htvpn: top needs a terminal; 'htvpn status --watch' works without one\n"


@pytest.fixture
def terminal(tmp_path, socket):
    started: list[Terminal] = []

    def start(*, before: str = "", command: str = "") -> Terminal:
        usual = f"{before} {sys.executable} -m halftunnel_vpn.cli top --socket {socket}"
        started.append(Terminal(tmp_path, command or usual))
        return started[-1]

    yield start
    for each in started:
        each.close()


async def shows(terminal: Terminal, *parts: str) -> str:
    """Return the screen with all ``parts``; the client is served in the meantime."""
    return await asyncio.to_thread(terminal.until, *parts)


async def test_a_real_terminal_of_every_size_without_colour(served, socket, terminal):
    async with served():
        top = terminal(before="NO_COLOR=1 COLUMNS=80 LINES=24")
        shown = await shows(top, "CONNECTED, home", "firefox", "the tunnel is up", "Quit")
        lines = shown.splitlines()
        assert len(lines) == 24 and lines[-1].split()[:2] == ["q", "Quit"]
        assert not re.search(r"\x1b\[[0-9;]*\b(3[0-8]|4[0-8]|9\d|10\d)\b", top.screen("-e")), "colours"
        for width, height in ((100, 30), (60, 20), (80, 24)):
            top.resize(width, height)
            mark = "-" * width
            shown = await shows(top, mark, "CONNECTED, home", "firefox", "closed", "the tunnel is up")
            lines = shown.splitlines()
            assert len(lines) == height and max(map(len, lines)) <= width
            assert any(line.startswith(" q Quit") for line in lines)
        top.press("q")
        await shows(top, "ended with 0")
        assert "CONNECTED" not in top.screen()


async def test_sigterm_gives_the_terminal_back(served, socket, terminal):
    async with served():
        top = terminal()
        await shows(top, "CONNECTED")
        os.kill(top.process(), signal.SIGTERM)
        await shows(top, "ended with 0")


async def test_a_missing_extra_is_named(served, socket, terminal):
    code = (
        "import sys; sys.modules['textual'] = None; from halftunnel_vpn.cli.main import main; "
        f"sys.exit(main(['top', '--socket', '{socket}']))"
    )
    async with served():
        top = terminal(command=f'{sys.executable} -c "{code}"')
        shown = await shows(top, "ended with 1")
    assert "htvpn: top needs textual, which is not installed: run " in shown
    assert "-m pip install 'textual>=8.2'" in shown.replace("\n", "")
    assert "Traceback" not in shown
