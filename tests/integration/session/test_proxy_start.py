"""`htvpn proxy` whose exit is not there yet: it says so, waits, and serves as soon as there is one."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

HTVPN = [sys.executable, "-m", "halftunnel_vpn.cli"]


@pytest.fixture
def exit_of_two_ports(tmp_path, free_port):
    """An exit on loopback that does not run, and the profile of its client."""
    directory = tmp_path / "x"
    a, b = free_port(), free_port()
    words = [
        "--upstream", f"wss://127.0.0.1:{a}", "--downstream", f"wss://localhost:{b}",
        "--listen-upstream", f"127.0.0.1:{a}", "--listen-downstream", f"127.0.0.1:{b}", "--dns", "127.0.0.1",
    ]  # fmt: skip
    subprocess.run([*HTVPN, "server", "init", "--dir", directory, *words], check=True, capture_output=True)
    profile = tmp_path / "me.toml"
    adding = [*HTVPN, "server", "add-client", "me", "--dir", directory, "--output", profile]
    subprocess.run(adding, check=True, capture_output=True)
    return directory, profile


@pytest.fixture
def start(tmp_path):
    """Start `htvpn` with a log, and end it at the end."""
    started: list[subprocess.Popen[bytes]] = []

    def run(name: str, *words: object) -> tuple[subprocess.Popen[bytes], Path]:
        log = tmp_path / f"{name}.log"
        with log.open("w") as out:
            argv = [*HTVPN, *map(str, words)]
            started.append(subprocess.Popen(argv, stdout=out, stderr=out))
        return started[-1], log

    yield run
    for process in started:
        process.terminate()
        process.wait(30)


def until(log: Path, what: str, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + 60
    while what not in (text := log.read_text()):
        assert process.poll() is None and time.monotonic() < deadline, text
        time.sleep(0.05)
    return text


def test_it_waits_for_its_exit(exit_of_two_ports, start, free_port: Callable[[], int], tmp_path):
    directory, profile = exit_of_two_ports
    notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notified.bind(str(tmp_path / "notify.sock"))
    notified.settimeout(60)
    with notified, pytest.MonkeyPatch.context() as patch:
        patch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify.sock"))
        patch.setenv("HOME", str(tmp_path))
        process, log = start("proxy", "proxy", profile, "--socks", f"127.0.0.1:{free_port()}")
        patch.undo()
        text = until(log, "the next attempt is in", process)
        assert "Traceback" not in text
        told = notified.recv(4096).decode()
        assert "STATUS=" in told and "EXTEND_TIMEOUT_USEC=" in told
        server, server_log = start("exit", "server", "run", "--dir", directory)
        until(server_log, "is ready", server)
        until(log, "the proxy is up", process)
    process.terminate()
    assert process.wait(30) == 0


def test_it_can_be_ended_while_it_waits(exit_of_two_ports, start, free_port: Callable[[], int]):
    _, profile = exit_of_two_ports
    process, log = start("proxy", "proxy", profile, "--socks", f"127.0.0.1:{free_port()}")
    until(log, "the next attempt is in", process)
    process.terminate()
    assert process.wait(30) == 0, log.read_text()
