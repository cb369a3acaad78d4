"""The client's addresses change in mid-transfer, as when a laptop goes from one network to another."""

from __future__ import annotations

from typing import Final

from lab.chaos.outcome import Outcome, traffic, trial
from lab.namespaces import command
from lab.topology import CLIENT, CLIENT_A, CLIENT_B, EXIT_A, EXIT_B, ROAD_A, ROAD_B, Lab
from lab.tunnel import LabTunnel

NEW_A: Final = "10.77.1.77"
NEW_B: Final = "10.77.2.77"

FIRST: Final = 2_000_000
PATIENCE: Final = 90.0
"""Seconds within which bytes must flow again."""


def roam(lab: Lab, tunnel: LabTunnel) -> Outcome:
    """Take both addresses away and give others, and move the default route to the other link.

    The old connections get no word of it: their packets have an address that the host has no more. The
    flows must go on, in the same session.
    """
    outcome = Outcome("client roams")
    with trial(outcome, tunnel), traffic(lab, 1 << 20) as flows:
        before = tunnel.status()
        flows.wait_moving(FIRST, PATIENCE)
        _move(lab)
        outcome.figures.append(f"bytes flow again after {flows.wait_moving(FIRST, PATIENCE):.2f} s")
        flows.wait_whole(outcome, PATIENCE)
        after = tunnel.status()
        if before is None or after is None or before.get("session") != after.get("session"):
            outcome.errors.append("the session was not kept")
    return outcome


def _move(lab: Lab) -> None:
    """As a DHCP client does on another network: old addresses and routes away, new ones in."""
    ip = ["ip", "-n", lab.namespace(CLIENT)]
    for device, old, new in ((ROAD_A, CLIENT_A, NEW_A), (ROAD_B, CLIENT_B, NEW_B)):
        command([*ip, "address", "del", f"{old}/24", "dev", device])
        command([*ip, "address", "add", f"{new}/24", "dev", device])
    # The default route went with the address that it left by.
    command([*ip, "route", "replace", "default", "via", EXIT_B, "dev", ROAD_B])
    command([*ip, "route", "replace", f"{EXIT_A}/32", "dev", ROAD_A])
