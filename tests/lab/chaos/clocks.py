"""A tunnel whose records run on clocks, while its legs rotate, its paths slow down and its client sleeps."""

from __future__ import annotations

import os
import signal
import time
from typing import Any, Final

from lab.chaos.outcome import Outcome, traffic, trial
from lab.chaos.transfers import Conversation
from lab.topology import CLIENT, EXIT, ROAD_A, ROAD_B, Lab
from lab.tunnel import LabTunnel

RATES: Final = ("8mbit", "4mbit")
"""Of both paths, one after the other: below the downstream's clock, and half of that."""

ROTATION: Final = 3.0
"""Seconds after which a leg is replaced by a new one."""

DELAY: Final = 2.0
"""`delay` of the profile: seconds for which more may wait than fits the clock."""

ROUND_TRIP: Final = 1.0
"""Seconds of a round trip on a free path at most, on a busy machine; the paths themselves take none."""

FREE: Final = 4.0
"""Seconds for which somebody speaks over a free path."""

PAUSE: Final = 0.1
"""Seconds between two exchanges."""

SLEEP: Final = 4.0
"""Seconds for which the client's process is stopped, as on a machine that sleeps."""

PATIENCE: Final = 90.0

PROFILE: Final = {
    "upstream": {"rotate_after": f'"{ROTATION:.0f}s"'},
    "downstream": {"rotate_after": f'"{ROTATION:.0f}s"'},
    "shaping": {"mode": '"strong"', "delay": f'"{DELAY:.0f}s"'},
}


def run_clocks(lab: Lab) -> Outcome:
    """Nothing may be lost, and on a free path nothing be later than `delay` and a round trip."""
    outcome = Outcome("clocks")
    tunnel = LabTunnel(lab, profile=PROFILE)
    tunnel.start()
    with trial(outcome, tunnel), Conversation(lab) as speaker:
        before = _shaping(tunnel)
        _speak(speaker, outcome, "free")
        for rate in RATES:
            lab.limit_rate(CLIENT, ROAD_A, rate)
            lab.limit_rate(EXIT, ROAD_B, rate)
            with traffic(lab, 1 << 19) as flows:
                flows.wait_whole(outcome, PATIENCE)
        for host, device in ((CLIENT, ROAD_A), (EXIT, ROAD_B)):
            lab.limit_rate(host, device, None)
        _sleep(tunnel)
        outcome.figures.append(f"{speaker.exchange():.2f} s after sleep")
        _speak(speaker, outcome, "free again")
        after = _shaping(tunnel)
        if after["mode"] != "strong" or after["slots"] <= before["slots"]:
            outcome.errors.append(f"the clock did not go on: {after}")
        if undeclared := set(after["escapes"]) - {"bulk", "keepalive", "oversize"}:
            outcome.errors.append(f"records left the clock because of {', '.join(sorted(undeclared))}")
        outcome.figures.append(f"{after['slots']} slots, escapes {after['escapes']}")
    return outcome


def _speak(speaker: Conversation, outcome: Outcome, when: str) -> None:
    """Speak for FREE seconds, over at least one rotation; note the longest exchange: two ways, two slots."""
    longest = 0.0
    until = time.monotonic() + FREE
    while time.monotonic() < until:
        longest = max(longest, speaker.exchange())
        time.sleep(PAUSE)
    outcome.figures.append(f"exchange at most {longest * 1000:.0f} ms, {when}")
    if longest > DELAY + ROUND_TRIP:
        outcome.errors.append(f"an exchange took {longest:.1f} s on a path that was {when}")


def _sleep(tunnel: LabTunnel) -> None:
    assert tunnel.client is not None
    os.kill(tunnel.client.pid, signal.SIGSTOP)
    try:
        time.sleep(SLEEP)
    finally:
        os.kill(tunnel.client.pid, signal.SIGCONT)


def _shaping(tunnel: LabTunnel) -> dict[str, Any]:
    status = tunnel.status()
    shaping: dict[str, Any] = status["shaping"] if status is not None else {}
    return {"mode": "", "slots": 0, "escapes": {}, **shaping}
