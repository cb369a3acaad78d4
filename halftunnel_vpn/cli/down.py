"""`htvpn down`: end the running client, and wait until the host is as it was."""

from __future__ import annotations

import sys
import time
from argparse import Namespace

from halftunnel_vpn.control import client
from halftunnel_vpn.errors import HostError

PATIENCE = 20.0
"""Seconds that the client may take to put everything back."""

INTERVAL = 0.05
"""Seconds between two looks."""


def run(options: Namespace) -> int:
    """Exit code 3 when nothing runs."""
    if not client.request_stop(options.socket):
        print("htvpn: not connected", file=sys.stderr)
        return 3
    deadline = time.monotonic() + PATIENCE
    while client.is_served(options.socket):
        if time.monotonic() > deadline:
            raise HostError(
                f"the client has not stopped within {PATIENCE:g} s; see its log, or end its process"
            )
        time.sleep(INTERVAL)
    print("disconnected")
    return 0
