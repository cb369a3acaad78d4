"""`scripts/leaks`: a storm over a host with the kill switch on, and what left it."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from halftunnel_vpn.errors import HalfTunnelError
from lab.leaks.capture import Verdict
from lab.leaks.inbound import Calls
from lab.leaks.storm import Storm
from lab.leaks.switches import LAN, survey_switches
from lab.topology import Lab

TRANSITIONS: Final = 200


class Report(NamedTuple):
    """What a storm did; the seconds of its longest step and without packet filter; and what left."""

    done: dict[str, int]
    longest: float
    unfiltered: float
    verdict: Verdict
    calls: Calls

    def __str__(self) -> str:
        verdict = self.verdict
        rows = [
            f"transitions        {sum(self.done.values())}, the longest {self.longest:.1f} s",
            *(f"    {count:4} x {name}" for name, count in sorted(self.done.items())),
            f"filter taken away  for {self.unfiltered:.2f} s at most, until it was mended",
            f"calls from outside {self.calls.answered} of {self.calls.tried} answered; {self.calls.messages} "
            f"messages in lasting sessions, {self.calls.lost} of these lost",
            f"packets examined   {verdict.examined}",
            *(f"    {count:8} {reason}" for reason, count in sorted(verdict.allowed.items())),
            f"leaked             {verdict.leaked}",
            *(f"    {example}" for example in verdict.examples),
        ]
        return "\n".join(rows)


def survey(transitions: int, seed: int, *, progress: bool = False) -> Report:
    """Take that many transitions in a lab of its own. HostError when the host does not recover from one."""

    with Lab() as lab:
        storm = Storm(lab, seed, _say if progress else lambda line: None)
        storm.run(transitions)
        unfiltered = max((end - began for began, end in storm.unfiltered), default=0.0)
        verdict = storm.captures.judge(lan=LAN, unfiltered=storm.unfiltered)
        return Report(dict(storm.done), storm.longest, unfiltered, verdict, storm.calls)


def main(arguments: Sequence[str]) -> int:
    """Exit code 0 when nothing leaked, 1 when something did or the host did not recover."""
    parser = argparse.ArgumentParser(prog="scripts/leaks", description=__doc__)
    parser.add_argument("--transitions", type=int, default=TRANSITIONS, help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="of an earlier run, to repeat it")
    parser.add_argument("--switches", type=int, default=0, help="only switch so often between three exits")
    options = parser.parse_args(arguments)
    seed = int(time.time()) if options.seed is None else options.seed
    if os.geteuid() != 0:
        print("scripts/leaks: network namespaces need root: run this with sudo", file=sys.stderr)
        return 1
    print(f"seed               {seed}", flush=True)
    try:
        if options.switches:
            switched = survey_switches(options.switches, seed, progress=_say)
            print(switched)
            return 1 if switched.verdict.leaked else 0
        report = survey(options.transitions, seed, progress=True)
    except HalfTunnelError as error:
        print(f"scripts/leaks: {error}", file=sys.stderr)
        return 1
    print(report)
    return 1 if report.verdict.leaked else 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
