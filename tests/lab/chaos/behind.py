"""Transfers through a front end that cuts what is silent, reloads and restarts."""

from __future__ import annotations

import time
from typing import Final

from lab.chaos.fronts import FrontedTunnel
from lab.chaos.outcome import Outcome, traffic, trial
from lab.chaos.transfers import Conversation
from lab.topology import Lab

STEP: Final = 3_000_000
"""Bytes that each direction carries before and after each thing that happens."""

PATIENCE: Final = 90.0

AWAY: Final = 0.5
"""Seconds between the end of a front end and its next start."""

IDLE_FACTOR: Final = 1.5
"""How much longer than the front end's idle time-out everything is silent."""


def front_restarts(lab: Lab, tunnel: FrontedTunnel, name: str, *, idle: int) -> Outcome:
    """Reload and restart the front end in mid-transfer, then let everything be silent beyond its time-out.

    Both flows of bulk, and a conversation that lives through all of it, must go on in the same session.
    """
    outcome = Outcome(f"behind {name}")
    with trial(outcome, tunnel), Conversation(lab) as conversation:
        before = tunnel.status()
        conversation.exchange()
        with traffic(lab, 1) as flows:
            flows.wait_moving(STEP, PATIENCE)
            tunnel.reload_front()
            reloaded = flows.wait_moving(STEP, PATIENCE)
            tunnel.stop_front()
            time.sleep(AWAY)
            tunnel.start_front()
            restarted = flows.wait_moving(STEP, PATIENCE)
            flows.wait_whole(outcome, PATIENCE)
        outcome.figures.append(f"{STEP / 1e6:.0f} MB took {reloaded:.2f} s from a reload on")
        outcome.figures.append(f"{restarted:.2f} s from a restart on")
        conversation.exchange()
        time.sleep(idle * IDLE_FACTOR)
        answered = conversation.exchange()
        outcome.figures.append(
            f"answer in {answered * 1000:.0f} ms after {idle * IDLE_FACTOR:.0f} s of silence"
        )
        after = tunnel.status()
        if before is None or after is None or before.get("session") != after.get("session"):
            outcome.errors.append("the session was not kept")
    if outcome.errors:
        outcome.errors.append(f"the front end said: {tunnel.front_output()[-1000:]}")
    return outcome
