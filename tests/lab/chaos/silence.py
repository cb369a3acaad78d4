"""Both roads dead for a while, and back: whatever was under way goes on."""

from __future__ import annotations

import time
from typing import Final

from lab.chaos.outcome import Outcome, traffic, trial
from lab.topology import CLIENT, EXIT, ROAD_A, ROAD_B, Lab
from lab.tunnel import LabTunnel

FIRST: Final = 2_000_000
"""Bytes that each direction carries before and must carry afterwards."""

SILENCE: Final = 12.0
"""Seconds: more than until the client refuses new flows (FAIL_FAST_AFTER); those it has must live."""

PATIENCE: Final = 90.0
"""Seconds within which bytes must flow again."""

EVERYTHING: Final = 1000
"""A thousand of a thousand packets are lost."""


def silence(lab: Lab, tunnel: LabTunnel, *, seconds: float = SILENCE) -> Outcome:
    """Drop every packet on both paths for this time, in both directions, during transfers."""
    outcome = Outcome(f"both roads dead for {seconds:.0f} s")
    with trial(outcome, tunnel), traffic(lab, 1 << 20) as flows:
        flows.wait_moving(FIRST, PATIENCE)
        try:
            _set_loss(lab, EVERYTHING)
            time.sleep(seconds)
        finally:
            _set_loss(lab, 0)
        outcome.figures.append(f"bytes flow {flows.wait_moving(FIRST, PATIENCE):.2f} s after they are back")
        flows.wait_whole(outcome, PATIENCE)
    return outcome


def _set_loss(lab: Lab, permille: int) -> None:
    for device in (ROAD_A, ROAD_B):
        for host in (CLIENT, EXIT):
            lab.lose(host, device, permille)
