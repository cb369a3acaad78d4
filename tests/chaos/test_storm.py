"""The short form of `scripts/chaos`: bulk in both directions while legs die, at random, again and again."""

from __future__ import annotations

import subprocess
import sys

import pytest
from lab.chaos import report
from lab.chaos.legs import Death, Way
from lab.chaos.storm import Storm
from lab.tunnel import LabTunnel

pytestmark = [pytest.mark.root, pytest.mark.timeout(400)]

SIZE = 120_000_000
KILLS = 12
SEED = 4

MOST_GROWTH = 200_000_000
"""Bytes: the pools of both directions (64 MiB), what is kept for sending, and what the measuring adds."""

LONGEST_STALL = 60.0
"""Seconds; a few are usual, but the machine may have much else to do."""


@pytest.mark.alone
def test_legs_that_die_under_bulk_cost_no_byte_no_flow_and_no_memory(lab, capsys):
    tunnel = LabTunnel(lab)
    tunnel.start()
    storm = Storm(lab, tunnel, SEED).blow(SIZE, KILLS)
    with capsys.disabled():
        print(f"\n{report.render([storm])}")
    assert storm.errors == [], tunnel.client_output()
    assert len(storm.kills) >= KILLS
    assert {kill.death for kill in storm.kills} == set(Death)
    assert {kill.way for kill in storm.kills} == set(Way)
    assert len(storm.recoveries.all) == len(storm.kills)
    assert max(storm.worst_stall.values()) < LONGEST_STALL
    for memory in storm.memory.values():
        assert memory.most - memory.before < MOST_GROWTH
    assert tunnel.stop_client() == 0, tunnel.client_output()
    assert tunnel.stop_exit() == 0, tunnel.exit_output()
    for output in (tunnel.client_output(), tunnel.exit_output()):
        assert "Traceback" not in output


def test_the_command_runs_for_so_long_and_reports():
    words = "--minutes 0 --only storm --megabytes 5 --kills 2 --seed 1 --legs 2".split()
    done = subprocess.run(
        [sys.executable, "-m", "lab.chaos", *words],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "seed 1" in done.stderr
    assert "2 legs killed" in done.stdout or "3 legs killed" in done.stdout
    assert done.stdout.rstrip().endswith("all hashes equal, no flow reset, one session")
