"""At which priority the event loop runs, and what it starts: seen in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from halftunnel_vpn.config.shared import DEFAULT_NICE
from halftunnel_vpn.transport.kernel.scheduling import give_way

PRIORITIES = """
import asyncio, os, subprocess, sys
from halftunnel_vpn.transport.loop import run

def nice():
    return os.getpriority(os.PRIO_PROCESS, 0)

def program():
    return int(subprocess.run(["nice"], capture_output=True, text=True, check=True).stdout)

async def main():
    print(nice(), await asyncio.to_thread(nice), await asyncio.to_thread(program))

run(main(), **({"nice": int(sys.argv[1])} if sys.argv[1:] else {}))
"""


def priorities(*arguments: str, wrapper: tuple[str, ...] = ()) -> list[int]:
    """Of the event loop, of a worker thread, and of a program that one starts."""
    done = subprocess.run(
        [*wrapper, sys.executable, "-c", PRIORITIES, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    return [int(word) for word in done.stdout.split()]


@pytest.mark.root
def test_the_loop_goes_first_and_what_it_starts_is_ordinary():
    assert priorities() == [DEFAULT_NICE, 0, 0]


def test_a_weaker_priority_holds_for_everything():
    assert priorities("7") == [7, 7, 7]


def test_a_priority_that_is_not_allowed_is_done_without():
    drop = ("setpriv", "--bounding-set=-sys_nice", "--inh-caps=-sys_nice") if os.geteuid() == 0 else ()
    assert priorities("-20", wrapper=("prlimit", "--nice=0", *drop)) == [0, 0, 0]


@pytest.mark.parametrize(("nice", "times"), [(-10, 1), (0, 0), (5, 0)])
def test_only_who_goes_before_others_gives_way(monkeypatch, nice, times):
    yielded: list[None] = []
    monkeypatch.setattr(os, "getpriority", lambda which, who: nice)
    monkeypatch.setattr(os, "sched_yield", lambda: yielded.append(None))
    give_way()
    assert len(yielded) == times
