"""`htvpn status`: how the running client is doing."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from halftunnel_vpn.control import client

CONNECTED_STATES = ("connected", "reconnecting")
"""States in which flows are alive; in every other one the exit code is 3."""

DISCONNECTED = {"state": "disconnected"}

INTERVAL = 1.0
"""Seconds between two looks with ``--watch``."""

CLEAR = "\x1b[H\x1b[J"


def run(options: Namespace) -> int:
    """Print the status, with ``--watch`` again and again; exit code 3 when not connected."""
    status = _read(options)
    _show(options, status, before="")
    try:
        while options.watch:
            time.sleep(INTERVAL)
            status = _read(options)
            _show(options, status, before=CLEAR if sys.stdout.isatty() else "\n")
    except KeyboardInterrupt:
        pass  # the way to end it
    return 0 if status.get("state") in CONNECTED_STATES else 3


def _read(options: Namespace) -> Mapping[str, Any]:
    return client.read_status(options.socket) or DISCONNECTED


def _show(options: Namespace, status: Mapping[str, Any], *, before: str) -> None:
    if options.json:
        print(json.dumps(status), flush=True)
    else:
        from halftunnel_vpn.cli.status_text import lines

        print(before + "\n".join(lines(status)), flush=True)
