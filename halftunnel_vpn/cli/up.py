"""`htvpn up`: connect this host through the daemon."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from halftunnel_vpn.cli import daemon_process, exit_commands, status_text
from halftunnel_vpn.control.status_schema import TunnelState
from halftunnel_vpn.errors import HostError, UsageError

PATIENCE = 60.0
"""Seconds to wait for the connection (the daemon goes on trying after that)."""

TICK = 1.0
"""Seconds between two updates of the progress display."""

ENDED = (TunnelState.DISCONNECTED, TunnelState.BLOCKED)
"""States after a failure."""

GIVEN_UP = (TunnelState.DISCONNECTING, TunnelState.DISCONNECTED)
"""States that the daemon does not leave by itself."""


def run(options: Namespace) -> int:
    """Connect through the daemon."""
    for option in ("metrics", "log_format", "log_level"):
        if getattr(options, option) is not None:
            raise UsageError(
                f"--{option.replace('_', '-')} works only with --foreground; the daemon's unit sets it"
            )
    path = daemon_process.ensure(options.socket)
    name = daemon_process.import_profile(path, options.profile)
    wish = exit_commands.choice(options)
    began = time.monotonic()
    seen = _last_serial(path)
    command: dict[str, Any] = {} if name is None else {"profile": name}
    daemon_process.command(path, "POST", "/v1/up", command | wish, timeout=exit_commands.PATIENCE)
    with _progress() as show:
        return _wait(path, seen, began, show)


def _wait(path: str, seen: int, began: float, show: Any) -> int:
    """Wait until the daemon is connected. Raises HostError with the sentence of the failure."""
    sentence = None
    status = daemon_process.command(path, "GET", "/v1/status")
    while status["state"] != TunnelState.CONNECTED:
        show(f"{status['state']} ({time.monotonic() - began:.0f} s)")
        told = daemon_process.command(path, "GET", f"/v1/events?since={seen}&wait={TICK}", timeout=TICK + 10)
        for event in told["events"]:
            seen = event["serial"]
            sentence = event["sentence"] or sentence
            if event["sentence"] and event["state"] in ENDED:
                raise HostError(str(event["sentence"]))
        if status["state"] in GIVEN_UP:
            raise HostError("not connected: stopped by 'htvpn down'")
        if time.monotonic() - began > PATIENCE:
            last = f"; the last failure: {sentence}" if sentence else ""
            raise HostError(
                f"not connected within {PATIENCE:.0f} s; the daemon goes on trying, 'htvpn down' ends "
                f"that{last}"
            )
        status = daemon_process.command(path, "GET", "/v1/status")
    show(None)
    several = f", exit {status['exit']}" if len(status.get("exits", ())) > 1 else ""
    print(f"connected, profile {status['profile']}{several}, device {status['device']}")
    for line in status_text.after_up(status):
        print(line)
    for notice in status.get("notices", ()):
        print(f"htvpn: {notice}", file=sys.stderr)
    if status["lost"]:
        print(f"htvpn: no leg {' and no leg '.join(status['lost'])} yet", file=sys.stderr)
    return 0


def _last_serial(path: str) -> int:
    """Return the serial of the last event before the command. Older failures are not ours."""
    events = daemon_process.command(path, "GET", "/v1/events?since=0&wait=0")["events"]
    return int(events[-1]["serial"]) if events else 0


@contextmanager
def _progress() -> Iterator[Any]:
    """Show one line on a terminal and remove it at the end. Show nothing if it is no terminal."""
    visible = sys.stderr.isatty()

    def show(text: str | None) -> None:
        if visible:
            sys.stderr.write("\r\x1b[K" + (text or ""))
            sys.stderr.flush()

    try:
        yield show
    finally:
        show(None)
