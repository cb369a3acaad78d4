"""Transfers over roads that lose, delay and reorder, and whose rate halves meanwhile."""

from __future__ import annotations

import signal
import statistics
import threading
from typing import Final

from halftunnel_vpn.errors import HostError
from lab.bench.latency import pings
from lab.bench.machine import network
from lab.bench.roads import replace_roads
from lab.chaos.outcome import Outcome, traffic, trial
from lab.topology import Lab
from lab.tunnel import LabTunnel

RATE: Final = 40e6
"""Bits a second of each road, each way, before it is halved."""

DELAY: Final = 0.010
"""Seconds, one way."""

QUEUE: Final = int(RATE / 8 * 2 * DELAY)
"""Bytes that may wait in front of the narrow place: one bandwidth-delay product."""

LOSS: Final = 0.005
LATE: Final = 0.01

STEP: Final = 4_000_000
"""Bytes that each direction carries before and after its rate is halved."""

PING_SECONDS: Final = 2.0

SANE: Final = 1000.0
"""Milliseconds that a ping under load may take in the middle: the road's own are 20 and 40 of queue."""

PATIENCE: Final = 90.0

_PROGRAM: Final = "lab.chaos.bad_road"


def bad_weather(lab: Lab, seed: int) -> Outcome:
    """Bulk both ways over two such roads, with pings beside it, before and after the rate is halved.

    Makes the roads of a fresh ``lab`` bad, and a tunnel over them. Raises HostError.
    """
    options = {"delay": DELAY, "rate": RATE, "queue": QUEUE, "loss": LOSS, "late": LATE, "seed": seed}
    words = [word for key, value in options.items() for word in (f"--{key}", f"{value}")]
    roads = replace_roads(lab, _PROGRAM, words)
    tunnel = LabTunnel(lab)
    tunnel.start()
    losses = f"{LOSS:.1%} lost, {LATE:.0%} overtaken"
    outcome = Outcome(f"{RATE / 1e6:.0f} Mbit/s, {2000 * DELAY:.0f} ms, {losses}, then half the rate")
    outcome.figures.append(network(lab)["congestion control"])
    with trial(outcome, tunnel), traffic(lab, 1) as flows:
        for which in ("full", "half"):
            flows.wait_moving(STEP // 4, PATIENCE)
            times: list[float] = []
            beside = threading.Thread(target=lambda into: into.extend(_pings(lab)), args=(times,))
            beside.start()
            moved = flows.wait_moving(STEP, PATIENCE)
            beside.join()
            rate = STEP * 8 / moved / 1e6
            outcome.figures.append(f"at {which} rate {rate:.0f} Mbit/s each way, {_describe(times)}")
            if not times or statistics.median(times) > SANE:
                outcome.errors.append(f"pings beside bulk at {which} rate: {_describe(times)}")
            if which == "full":
                for road in roads:
                    road.send_signal(signal.SIGUSR1)
        flows.wait_whole(outcome, PATIENCE)
    return outcome


def _pings(lab: Lab) -> list[float]:
    try:
        return pings(lab, PING_SECONDS)
    except HostError:
        return []


def _describe(times: list[float]) -> str:
    if not times:
        return "no ping came back"
    slow = sorted(times)[int(len(times) * 0.99)]
    return f"ping {statistics.median(times):.0f} ms, 99 % under {slow:.0f}"
