"""Switches between the exits of a client under the kill switch, with traffic of every kind all the while."""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from halftunnel_vpn.errors import HostError
from lab.daemon import LabDaemon
from lab.leaks.capture import Captures, Verdict
from lab.several_exits import NAMES, LabExits
from lab.topology import CLIENT, Lab

TRAFFIC_PAUSE: Final = 0.05
"""Seconds between two rounds of traffic of every kind."""

LAN: Final = ("10.77.0.0/16", "192.168.77.0/24", "fd77::/16", "fe80::/10", "224.0.0.0/24", "ff02::/16")
"""What the profile's ``allow_lan`` allows of the lab."""


Say = Callable[[str], None]


class SwitchReport(NamedTuple):
    """How many switches led to each exit, the seconds of the longest one, and what left the host."""

    done: Counter[str]
    longest: float
    verdict: Verdict

    def __str__(self) -> str:
        rows = [
            f"switches           {sum(self.done.values())}, the longest {self.longest:.2f} s",
            *(f"    {count:4} x to {name}" for name, count in sorted(self.done.items())),
            f"packets examined   {self.verdict.examined}",
            *(f"    {count:8} {reason}" for reason, count in sorted(self.verdict.allowed.items())),
            f"leaked             {self.verdict.leaked}",
            *(f"    {example}" for example in self.verdict.examples),
        ]
        return "\n".join(rows)


def survey_switches(switches: int, seed: int, *, progress: Say = lambda line: None) -> SwitchReport:
    """Switch so often in a lab of its own. HostError when a switch fails."""
    with Lab() as lab:
        exits = LabExits(lab, profile={"protection": {"kill_switch": '"always"'}})
        exits.start()
        daemon = LabDaemon(lab, exits.profile)
        daemon.start()
        daemon.up()
        daemon.wait_state("connected")
        report = switch_and_look(lab, daemon, switches, seed, progress=progress)
        daemon.down()
        daemon.stop()
        return report


def switch_and_look(
    lab: Lab,
    daemon: LabDaemon,
    switches: int,
    seed: int,
    *,
    further: Sequence[str] = (),
    progress: Say = lambda line: None,
) -> SwitchReport:
    """Switch so often while every wire is watched. ``further`` are wires beside the lab's two roads."""
    chosen = random.Random(seed)
    done: Counter[str] = Counter()
    longest = 0.0
    captures = Captures(lab, further=further)
    captures.start()
    traffic = lab.start(CLIENT, [sys.executable, "-m", "lab.leaks.traffic", str(TRAFFIC_PAUSE)])
    for number in range(switches):
        name = chosen.choice([name for name in NAMES if name != daemon.status()["exit"]])
        began = time.monotonic()
        daemon.command("POST", "/v1/switch", {"exit": name})
        _wait_in_use(daemon, name)
        longest = max(longest, time.monotonic() - began)
        done[name] += 1
        progress(f"{number + 1:4} of {switches}: {name}")
    lab.stop(traffic)
    captures.stop()
    return SwitchReport(done, longest, captures.judge(lan=LAN))


def _wait_in_use(daemon: LabDaemon, name: str) -> None:
    deadline = time.monotonic() + 60
    while (status := daemon.status())["exit"] != name or status["state"] != "connected":
        if time.monotonic() > deadline:
            raise HostError(f"The exit {name} is not in use:\n{daemon.output()}")
        time.sleep(0.01)
