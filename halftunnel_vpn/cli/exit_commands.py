"""`htvpn exits` and `htvpn switch`: the exits of a profile, and which of them is used."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from halftunnel_vpn.cli import daemon_process
from halftunnel_vpn.control.status_schema import ExitState
from halftunnel_vpn.errors import HostError

PATIENCE: Final = 120.0
"""Seconds for a switch or a measurement: every exit may take its whole time."""


def show(options: Namespace) -> int:
    """Print a line for each exit. Exit code 1 if none can be reached."""
    path = daemon_process.ensure(options.socket)
    name = daemon_process.import_profile(path, options.profile)
    target = "/v1/exits" if name is None else f"/v1/exits?profile={quote(name, safe='')}"
    exits = daemon_process.command(path, "GET", target, timeout=PATIENCE)["exits"]
    if options.json:
        print(json.dumps(exits))
    else:
        for line in table(exits):
            print(line)
    return int(not any(exit["state"] in (ExitState.IN_USE, ExitState.READY) for exit in exits))


def switch(options: Namespace) -> int:
    """Use another exit. The tunnel and its rules stay; flows end, because targets see another address."""
    wish = choice(options)
    daemon_process.command(options.socket, "POST", "/v1/switch", wish, timeout=PATIENCE)
    status = daemon_process.command(options.socket, "GET", "/v1/status")
    if status.get("exit") is None:
        raise HostError("the choice is saved, but no session exists now: run 'htvpn status' to see why")
    print(f"the exit {status['exit']} is used")
    return 0


def choice(options: Namespace) -> dict[str, Any]:
    """Return what a command line says about exits, as the control socket takes it."""
    wish: dict[str, Any] = {}
    if options.exit is not None:
        wish["exit"] = options.exit
    if options.fastest:
        wish["fastest"] = True
    return wish


def table(exits: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line for each exit: name, round trip, state, and why it is unreachable."""
    width = max((len(exit["name"]) for exit in exits), default=0)
    for exit in exits:
        seconds = exit.get("round_trip")
        round_trip = "-" if seconds is None else f"{seconds * 1000:.0f} ms"
        why = f": {exit['sentence']}" if exit.get("sentence") else ""
        yield f"{exit['name']:<{width}} {round_trip:>8}  {exit['state']}{why}"
