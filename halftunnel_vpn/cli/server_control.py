"""`htvpn server status`, `clients`, `sessions` and `client`: query and administer an exit."""

from __future__ import annotations

import json
import os
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from halftunnel_vpn.cli import server_directory
from halftunnel_vpn.cli.status_text import in_units
from halftunnel_vpn.config.clients import CLIENTS, changed_entry, checked_name
from halftunnel_vpn.config.server import ServerConfig
from halftunnel_vpn.control import requests
from halftunnel_vpn.control.exit_routes import CLIENTS_PATH, EXIT_STATUS_PATH, SESSIONS_PATH
from halftunnel_vpn.control.exit_socket import sockets_to_ask
from halftunnel_vpn.control.peer import EXIT_GROUP
from halftunnel_vpn.errors import HostError, UsageError

DONE: Final = 0
NOT_RUNNING: Final = 3

WATCH_INTERVAL: Final = 1.0
"""Seconds between two answers of --watch."""


def status(options: Namespace) -> int:
    """Show the exit as a whole."""
    return _show(options, EXIT_STATUS_PATH, _status_text)


def clients(options: Namespace) -> int:
    """Show every client."""
    return _show(options, CLIENTS_PATH, _clients_text)


def sessions(options: Namespace) -> int:
    """Show every session."""
    return _show(options, SESSIONS_PATH, _sessions_text)


def client(options: Namespace) -> int:
    """Change what a client may do, in its file; a running exit applies it at once."""
    name, changes = checked_name(options.name), _changes(options.action, options.value)
    with server_directory.open_directory(Path(options.dir)) as directory:
        config = server_directory.read_configuration(directory)
        with directory.subdirectory(CLIENTS, make=True) as files:
            file = name + server_directory.CLIENT_SUFFIX
            files.change(
                file,
                lambda text: changed_entry(text, changes, source=file),
                missing=f"this exit has no client {name}",
            )
    answer = ask_exit(config, Path(options.dir), "POST", f"{CLIENTS_PATH}/{name}")
    done = f"{options.action}d" if options.value is None else f"{options.action} {options.value}"
    print(f"{name}: {done}.")
    if answer is None:
        print("The exit does not run; this holds when it starts.")
    return DONE


def _changes(action: str, value: str | None) -> dict[str, str | bool | None]:
    if action in ("disable", "enable"):
        if value is not None:
            raise UsageError(f"{action} takes no value")
        return {"disabled": True if action == "disable" else None}
    if value is None:
        example = {"expires": "2026-12-31", "quota": "100GB/month", "rate": "20mbit"}[action]
        raise UsageError(f"say what to set, such as {action} {example}, or {action} never")
    return {action: None if value in ("never", "none", "off") else value}


def _show(options: Namespace, path: str, text: Callable[[dict[str, Any]], str]) -> int:
    directory = Path(options.dir)
    configured = _configured_socket(directory)
    while True:
        answer = _answer_of(configured, directory, "GET", path)
        if answer is None:
            print("not running: no exit of this directory answers")
            return NOT_RUNNING
        print(json.dumps(answer) if options.json else text(answer), flush=True)
        if not options.watch:
            return DONE
        time.sleep(WATCH_INTERVAL)
        if not options.json:
            print("\x1b[H\x1b[2J", end="")


def ask_exit(config: ServerConfig, directory: Path, method: str, path: str) -> dict[str, Any] | None:
    """Return the answer of the exit of ``directory``; None if it does not run. Raises HostError."""
    return _answer_of(config.control.socket, directory, method, path)


def _configured_socket(directory: Path) -> str:
    """Return [control] socket; empty for a member of the group, who may not read the directory."""
    try:
        os.stat(directory / server_directory.CONFIGURATION)
    except PermissionError:
        return ""
    except OSError:
        pass  # the next line says in a sentence what is missing
    return server_directory.load(directory).control.socket


def _answer_of(configured: str, directory: Path, method: str, path: str) -> dict[str, Any] | None:
    is_denied = False
    for socket in sockets_to_ask(configured, directory):
        try:
            answer = requests.command(socket, method, path)
        except requests.NoAccess:  # a member of the group may use the socket in the runtime directory alone
            is_denied = True
            continue
        if answer is not None:
            return answer
    if is_denied:
        raise HostError(
            f"only root, the exit's user and members of the group {EXIT_GROUP} may ask this exit; run this "
            f"as root, or join the group with `usermod -aG {EXIT_GROUP} USER`"
        )
    return None


def _status_text(answer: dict[str, Any]) -> str:
    used, limit = answer["memory"]
    lines = [
        f"up for      {_duration(answer['uptime'])}, version {answer['version']}",
        f"clients     {answer['clients']}, {answer['online']} online",
        f"sessions    {answer['sessions']}",
        f"legs        upstream {answer['legs']['upstream']}, downstream {answer['legs']['downstream']}",
        f"streams     {answer['streams']}",
        f"memory      {_amount(used)} of {_amount(limit)}",
    ]
    return "\n".join([*lines, *(f"problem     {problem}" for problem in answer["problems"])])


_CLIENT_COLUMNS: Final = (
    "CLIENT",
    "STATE",
    "SINCE",
    "LEGS",
    "SENT/S",
    "RECEIVED/S",
    "TODAY",
    "MONTH",
    "LIMITS",
)


def _clients_text(answer: dict[str, Any]) -> str:
    rows: list[tuple[str, ...]] = [_CLIENT_COLUMNS]
    for row in answer["clients"]:
        state = row["refused"] or ("online" if row["online"] else "offline")
        since = row["since"] if row["online"] else row["last_seen"]
        rows.append(
            (
                row["name"],
                state,
                "never" if since is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(since)),
                str(row["legs"]),
                _amount(row["sent_rate"]),
                _amount(row["received_rate"]),
                _amount(sum(row["today"])),
                _amount(sum(row["month"])),
                _limits(row),
            )
        )
    return _table(rows)


def _limits(row: dict[str, Any]) -> str:
    parts = [f"until {row['expires']}"] if row["expires"] else []
    parts += [f"{_amount(row['quota'])}/month"] if row["quota"] else []
    parts += [f"{row['rate'] * 8 / 1e6:g} Mbit/s"] if row["rate"] else []
    return ", ".join(parts) or "none"


def _sessions_text(answer: dict[str, Any]) -> str:
    rows: list[tuple[str, ...]] = [("SESSION", "CLIENT", "FOR", "STREAMS", "ROUND TRIP", "LEGS")]
    for row in answer["sessions"]:
        round_trip = f"{row['round_trip'] * 1000:.0f} ms"
        age = _duration(time.time() - row["since"])
        rows.append((row["id"], row["client"], age, str(row["streams"]), round_trip, ", ".join(row["legs"])))
    return _table(rows)


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _amount(count: float) -> str:
    return in_units(count, 1000, (" B", " kB", " MB", " GB", " TB"))


def _duration(seconds: float) -> str:
    whole = max(0, int(seconds))
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole % 60} s"
