"""`htvpn down`: disconnect, and wait until the host is restored."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from typing import Any

from halftunnel_vpn.control import requests
from halftunnel_vpn.control.status_schema import TunnelState
from halftunnel_vpn.errors import HostError

PATIENCE = 20.0
"""Seconds within which the client must restore the host."""

INTERVAL = 0.05
"""The poll interval in seconds."""


def run(options: Namespace) -> int:
    """Disconnect. Return exit code 3 if nothing is up."""
    status = requests.read_status(options.socket)
    if status is None or _is_down(status) or not requests.request_stop(options.socket):
        print("htvpn: not connected", file=sys.stderr)
        return 3
    deadline = time.monotonic() + PATIENCE
    while True:
        status = _status_while_it_ends(options.socket)
        if status is None or _is_down(status):
            break
        if time.monotonic() > deadline:
            raise HostError(
                f"the client has not stopped within {PATIENCE:g} s; see its log, or end its process"
            )
        time.sleep(INTERVAL)
    protection = (status or {}).get("protection") or {}
    if protection.get("active"):
        print("disconnected; the kill switch stays on and blocks everything that it does not allow")
    else:
        print("disconnected")
    return 0


def _is_down(status: dict[str, object]) -> bool:
    return status.get("state") == TunnelState.DISCONNECTED


def _status_while_it_ends(path: str) -> dict[str, Any] | None:
    """Return the status; None when the client has ended, even in the middle of an answer."""
    try:
        return requests.read_status(path)
    except HostError:
        if requests.is_served(path):
            raise
        return None
