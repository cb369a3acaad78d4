"""`htvpn status`: the state of the running client."""

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
"""States in which flows are alive. In every other state the exit code is 3."""

DISCONNECTED: Mapping[str, Any] = {"state": TunnelState.DISCONNECTED}

INTERVAL = 1.0
"""The poll interval in seconds with ``--watch``."""

CLEAR = "\x1b[H\x1b[J"


def run(options: Namespace) -> int:
    """Print the status, repeatedly with ``--watch``. Return exit code 3 if not connected."""
    status = _read(options)
    _show(options, status, before="")
    try:
        while options.watch:
            time.sleep(INTERVAL)
            status = _read(options)
            _show(options, status, before=CLEAR if sys.stdout.isatty() else "\n")
    except KeyboardInterrupt:
        pass  # SIGINT ends --watch
    return 0 if status.get("state") in CONNECTED_STATES else 3


def _read(options: Namespace) -> Mapping[str, Any]:
    return requests.read_status(options.socket) or {**DISCONNECTED, **_leftovers()}


def _leftovers() -> dict[str, list[str]]:
    """Return what an earlier client left on this host, under the status key ``leftovers``."""
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
