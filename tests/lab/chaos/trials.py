"""Every trial by name: what is done to a tunnel in a fresh lab, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from lab import Lab
from lab.chaos.behind import front_restarts
from lab.chaos.clocks import run_clocks
from lab.chaos.fronts import FRONTS, FrontedTunnel
from lab.chaos.outcome import Outcome
from lab.chaos.restarts import restart_exit
from lab.chaos.roaming import roam
from lab.chaos.silence import silence
from lab.chaos.weather import bad_weather
from lab.topology import CLIENT, EXIT, ROAD_A, ROAD_B
from lab.tunnel import LabTunnel

RATE: Final = "60mbit"
"""Of each road in its own direction: transfers last while things happen, and several trials fit a machine."""

IDLE: Final = 5
"""Seconds after which the front ends cut what is silent."""

Trial = Callable[[Lab, int], Outcome]


def _calm(lab: Lab) -> None:
    lab.limit_rate(CLIENT, ROAD_A, RATE)
    lab.limit_rate(EXIT, ROAD_B, RATE)


def _running(lab: Lab) -> LabTunnel:
    _calm(lab)
    tunnel = LabTunnel(lab)
    tunnel.start()
    return tunnel


def _behind(name: str) -> Trial:
    def run(lab: Lab, seed: int) -> Outcome:
        _calm(lab)
        tunnel = FrontedTunnel(lab, FRONTS[name], idle=IDLE)
        tunnel.start()
        return front_restarts(lab, tunnel, name, idle=IDLE)

    return run


TRIALS: Final[Mapping[str, Trial]] = {
    "silence": lambda lab, seed: silence(lab, _running(lab)),
    "weather": bad_weather,
    **{name: _behind(name) for name in FRONTS},
    "clocks": lambda lab, seed: run_clocks(lab),
    "roaming": lambda lab, seed: roam(lab, _running(lab)),
    "exit-restarted": lambda lab, seed: restart_exit(lab, _running(lab), kill=False),
    "exit-killed": lambda lab, seed: restart_exit(lab, _running(lab), kill=True),
}
"""The longest first, so that several at once end early."""


def run_trial(name: str, seed: int) -> Outcome:
    """One trial, in a lab of its own. Raises HostError when it cannot be set up."""
    with Lab() as lab:
        return TRIALS[name](lab, seed)
