"""The protocols of systemd, spoken to sockets of our own."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from halftunnel_vpn.daemon import systemd
from halftunnel_vpn.host import service_manager
from halftunnel_vpn.timers import Wheel


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The service manager's end of NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listener


def test_the_service_manager_hears_what_is_said(manager: socket.socket) -> None:
    service_manager.notify("READY=1", "STATUS=connected")
    assert manager.recv(1000) == b"READY=1\nSTATUS=connected"
    service_manager.notify_reloading()
    assert manager.recv(1000).startswith(b"RELOADING=1\nMONOTONIC_USEC=")


def test_one_that_does_not_listen_is_no_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    service_manager.notify("READY=1")


def test_without_a_service_manager_nothing_happens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    service_manager.notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    service_manager.notify("READY=1")


@pytest.mark.parametrize(
    ("microseconds", "pid", "interval"),
    [("20000000", None, 10.0), ("20000000", "1", None), ("", None, None), ("0", None, None)],
)
def test_signs_of_life_come_twice_as_often_as_asked(
    monkeypatch: pytest.MonkeyPatch, microseconds: str, pid: str | None, interval: float | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    monkeypatch.setenv("WATCHDOG_PID", pid or str(os.getpid()))
    assert service_manager.watchdog_interval() == interval


LISTENER = """
import os, sys
os.environ["LISTEN_PID"] = str(os.getpid() + int(sys.argv[1]))
from halftunnel_vpn.daemon import systemd
from halftunnel_vpn.timers import Wheel
found = systemd.listeners()
print([made.getsockname() for made in found], "LISTEN_FDS" in os.environ, systemd.listeners())
"""


@pytest.mark.parametrize(("offset", "found"), [(0, True), (1, False)])
def test_sockets_of_the_service_manager_are_taken_over(tmp_path: Path, offset: int, found: bool) -> None:
    path = str(tmp_path / "control.sock")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path)
        as_third = ["bash", "-c", f'exec "$@" 3<&{made.fileno()}', "-"]
        done = subprocess.run(
            [*as_third, sys.executable, "-c", LISTENER, str(offset)],
            env={**os.environ, "LISTEN_FDS": "1"},
            pass_fds=(made.fileno(),),
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stdout.strip() == f"{[path] if found else []} False []"


def test_entries_of_the_journal_have_fields_and_nothing_private() -> None:
    sent: list[tuple[str, dict[str, Any]]] = []
    handler = systemd.JournalHandler(lambda message, **fields: sent.append((message, fields)), private=False)
    logger = logging.Logger("halftunnel_vpn.client")
    logger.addHandler(handler)
    extra = {"session": 3, "stream": 17, "id": "4f2a", "private": {"destination": "192.0.2.1"}}
    logger.warning("stream\nopened", extra=extra)
    ((message, fields),) = sent
    assert message == "stream?opened"
    assert fields["SESSION"] == "3" and fields["STREAM"] == "17" and fields["PRIORITY"] == "4"
    assert fields["CORRELATION_ID"] == "4f2a-17"
    assert fields["SYSLOG_IDENTIFIER"] == "halftunnel" and "192.0.2.1" not in str(fields)
    logger.error("no session")
    assert "CORRELATION_ID" not in sent[1][1] and sent[1][1]["PRIORITY"] == "3"


def test_only_a_standard_error_that_is_the_journal_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "1:1")
    assert systemd.journal_handler(private=False) is None


def test_the_watchdog_is_fed_by_the_timers_of_the_process(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    wheel = Wheel()
    service_manager.Watchdog(wheel).start(100.0)
    assert manager.recv(100) == b"WATCHDOG=1"
    wheel.run(105.0)
    wheel.run(110.5)
    assert manager.recv(100) == b"WATCHDOG=1"
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):  # timers that do not run send nothing
        manager.recv(100)
