"""The long road of the benchmark: both roads of a lab replaced by relays with delay and a rate."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Final

from lab import namespaces
from lab.bench.rows import LONG_ROAD, Line
from lab.topology import (
    CLIENT,
    CLIENT_A,
    CLIENT_B,
    EXIT,
    EXIT_A,
    EXIT_B,
    ROAD_A,
    ROAD_B,
    Lab,
)

_ROADS: Final = ((ROAD_A, CLIENT_A, EXIT_A), (ROAD_B, CLIENT_B, EXIT_B))
_APPEAR: Final = 5.0


def lengthen(lab: Lab, line: Line = LONG_ROAD) -> None:
    """Make both roads of a fresh lab such a line. IPv4 alone.

    Addresses and the client's default route are as before. HostError when it cannot be done.
    """
    options = ["--delay", f"{line.delay / 2}", "--rate", f"{line.rate}", "--queue", f"{line.queue}"]
    replace_roads(lab, "lab.bench.relay", options)


def replace_roads(lab: Lab, program: str, options: Sequence[str]) -> list[subprocess.Popen[str]]:
    """Put a relay in the place of each road of a fresh lab: `python -m PROGRAM ONE OTHER DEVICE OPTIONS`.

    The processes, which the lab ends. IPv4 alone; HostError when it cannot be done.
    """
    client, exit_ = lab.namespace(CLIENT), lab.namespace(EXIT)
    relays = []
    for device, client_address, exit_address in _ROADS:
        namespaces.command(["ip", "-n", client, "link", "del", "dev", device])
        argv = [sys.executable, "-m", program, client, exit_, device, *options]
        relays.append(lab.start(CLIENT, argv))
        for namespace, address in ((client, client_address), (exit_, exit_address)):
            namespaces.wait_for_device(namespace, device, _APPEAR)
            _configure(namespace, device, address)
    namespaces.command(["ip", "-n", client, "route", "add", "default", "via", EXIT_A, "dev", ROAD_A])
    return relays


def set_loss(lab: Lab, permille: int) -> None:
    """Lose so many of a thousand packets on both roads, in each direction."""
    for device, _, _ in _ROADS:
        for host in (CLIENT, EXIT):
            lab.lose(host, device, permille)


def _configure(namespace: str, device: str, address: str) -> None:
    for words in (f"address add {address}/24 dev {device}", f"link set dev {device} mtu 1500 up"):
        namespaces.command(["ip", "-n", namespace, *words.split()])
