"""`htvpn logs`: the daemon's last lines and, with --follow, new ones."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from halftunnel_vpn.cli import daemon_process

WAIT = 15.0
"""Seconds that one request waits for new lines."""


def run(options: Namespace) -> int:
    """Print the last lines. With ``--follow`` go on until the daemon ends or SIGINT."""
    lines = _ask(options.socket, 0, 0.0)
    _show(lines[-options.lines :] if options.lines else [], options.json)
    while options.follow:
        since = lines[-1]["serial"] if lines else 0
        newer = _ask(options.socket, since, WAIT)
        _show(newer, options.json)
        lines = newer or lines
    return 0


def _ask(path: str, since: int, wait: float) -> list[dict[str, Any]]:
    answer = daemon_process.command(path, "GET", f"/v1/logs?since={since}&wait={wait:g}", timeout=wait + 10)
    return list(answer["lines"])


def _show(lines: list[dict[str, Any]], as_json: bool) -> None:
    for line in lines:
        print(json.dumps(line) if as_json else text_of(line), flush=True)


def text_of(line: Mapping[str, Any]) -> str:
    """Format a line: ``2026-01-31 12:00:00 INFO client: the tunnel is up session=1``, in local time."""
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(line["time"]))
    where = str(line["logger"]).removeprefix("halftunnel_vpn.")
    fields = "".join(f" {name}={value}" for name, value in line["fields"].items())
    text = f"{moment} {str(line['level']).upper()} {where}: {line['message']}{fields}"
    # The log contains texts from peers. Control characters in them must not reach the terminal.
    return "".join(character if character.isprintable() else "?" for character in text)
