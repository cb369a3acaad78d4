"""The command line: storms and trials for so many minutes, with a display of progress and a report."""

from __future__ import annotations

import argparse
import itertools
import os
import random
import sys
import time
from collections.abc import Sequence
from typing import Final

from halftunnel_vpn.errors import HalfTunnelError, HostError
from lab import Lab
from lab.chaos import report
from lab.chaos.legs import Way
from lab.chaos.outcome import Outcome
from lab.chaos.storm import Progress, Storm, StormReport
from lab.chaos.trials import TRIALS, run_trial
from lab.tunnel import LabTunnel

MINUTES: Final = 5.0
MEGABYTES: Final = 1000
KILLS: Final = 100

STORM: Final = "storm"
"""What is done besides the trials, on one tunnel from the beginning to the end."""

QUIET_DISPLAY: Final = 5.0
"""Seconds between two lines of progress where there is no terminal."""


def parser() -> argparse.ArgumentParser:
    """Every option."""
    made = argparse.ArgumentParser(
        prog="scripts/chaos",
        description="Let roads die under a real tunnel, in namespaces of its own: nothing may be lost.",
        epilog=f"Of these it does one after the other until the time is over: {STORM}, {', '.join(TRIALS)}.",
    )
    made.add_argument(
        "--minutes", type=float, default=MINUTES, metavar="N", help=f"how long (default {MINUTES:.0f})"
    )
    made.add_argument("--seed", type=int, help="repeat what a run with this seed did (default: a new one)")
    made.add_argument("--only", nargs="+", choices=[STORM, *TRIALS], metavar="NAME", help="only these")
    made.add_argument(
        "--megabytes", type=int, default=MEGABYTES, metavar="N",
        help=f"each way, in one storm (default {MEGABYTES})",
    )  # fmt: skip
    made.add_argument("--kills", type=int, default=KILLS, metavar="N", help=f"in one storm (default {KILLS})")
    made.add_argument(
        "--legs", type=int, default=1, metavar="N", help="connections per direction (default 1)"
    )
    made.add_argument(
        "--shaping",
        choices=("off", "split", "strong"),
        default="off",
        help="[shaping] mode of every tunnel (default: off)",
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run and report; the exit code."""
    options = parser().parse_args(argv)
    try:
        return _run(options)
    except HalfTunnelError as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    if os.geteuid() != 0:
        raise HostError("this makes network namespaces and needs root: sudo ./scripts/chaos")
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    names = options.only or [STORM, *TRIALS]
    storms: list[StormReport] = []
    outcomes: list[Outcome] = []
    LabTunnel.shaping = options.shaping
    Lab.sweep()
    print(f"seed {seed}", file=sys.stderr, flush=True)
    until = time.monotonic() + options.minutes * 60
    interrupted = False
    try:
        with Lab() as lab:
            storm = _prepare(lab, options.legs, seed) if STORM in names else None
            for number in itertools.count():
                name = names[number % len(names)]
                display = Display(f"{number + 1}. {name}")
                if storm is not None and name == STORM:
                    storms.append(storm.blow(options.megabytes * 1_000_000, options.kills, progress=display))
                else:
                    outcomes.append(run_trial(name, seed + number))
                    display.say(outcomes[-1].line())
                if time.monotonic() > until:
                    break
    except KeyboardInterrupt:
        print("\ninterrupted; this is what there is:", file=sys.stderr)
        interrupted = True
    if storms:
        print(report.render(storms))
    for outcome in outcomes:
        print(f"- {outcome.line()}")
    wrong = [error for storm in storms for error in storm.errors]
    wrong += [error for outcome in outcomes for error in outcome.errors]
    return 1 if wrong or interrupted else 0


def _prepare(lab: Lab, legs: int, seed: int) -> Storm:
    roads = {road: {"connections": str(legs)} for road in ("upstream", "downstream")}
    tunnel = LabTunnel(lab, profile=roads)
    tunnel.start()
    return Storm(lab, tunnel, seed)


class Display:
    """Progress on standard error: one line that changes on a terminal, a line now and then elsewhere."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._is_terminal = sys.stderr.isatty()
        self._next = 0.0
        self.say("...")

    def __call__(self, progress: Progress) -> None:
        """Show how far a storm is."""
        if progress.seconds < self._next:
            return
        self._next = progress.seconds + (0 if self._is_terminal else QUIET_DISPLAY)
        moved = ", ".join(f"{progress.position[way] / 1e6:.0f} MB {way.name.lower()}" for way in Way)
        legs = "/".join(str(progress.legs[way]) for way in Way)
        wrong = f", {progress.errors} ERRORS" if progress.errors else ""
        self.say(
            f"{progress.seconds:4.0f} s, {moved}, {progress.kills} kills, legs {legs}{wrong}", changes=True
        )

    def say(self, text: str, *, changes: bool = False) -> None:
        """Show a text; one that ``changes`` is overwritten by the next on a terminal."""
        line = f"{self._title}: {text}"
        if self._is_terminal:
            print(f"\r\x1b[K{line}", end="" if changes else "\n", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)
