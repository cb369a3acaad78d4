"""`htvpn status`: how the running client is doing."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from halftunnel_vpn.control import requests
from halftunnel_vpn.control.status_schema import TunnelState
from halftunnel_vpn.errors import HostError

CONNECTED_STATES = (TunnelState.CONNECTED, TunnelState.RECONNECTING)
"""States in which flows are alive; in every other one the exit code is 3."""

DISCONNECTED: Mapping[str, Any] = {"state": TunnelState.DISCONNECTED}

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
    return requests.read_status(options.socket) or {**DISCONNECTED, **_leftovers()}


def _leftovers() -> dict[str, list[str]]:
    """Return what a client that is gone left on this host, under the key that a status has for it."""
    from halftunnel_vpn.host.record.journal import state_directory
    from halftunnel_vpn.host.record.leftovers import leftovers

    try:
        found = leftovers(state_directory())
    except HostError as error:
        found = [str(error)]
    return {"leftovers": found} if found else {}


def _show(options: Namespace, status: Mapping[str, Any], *, before: str) -> None:
    if options.json:
        print(json.dumps(status), flush=True)
    else:
        from halftunnel_vpn.cli.status_text import lines

        print(before + "\n".join(lines(status)), flush=True)
