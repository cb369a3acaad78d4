"""The arithmetic and the words of the chaos runs; what runs in namespaces is in tests/chaos."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time

import pytest
from lab.chaos import report
from lab.chaos.bad_road import HELD, BadPipe
from lab.chaos.legs import Death, Way
from lab.chaos.outcome import Gone, Outcome, wait, wait_while_moving
from lab.chaos.recovery import Kill, Recoveries, worst_pause
from lab.chaos.storm import Memory, StormReport
from lab.chaos.transfers import Pause

CHAOS = [sys.executable, "-m", "lab.chaos"]


def recovered(kills, pauses, until=100.0, way=Way.UP):
    found = Recoveries()
    found.add(kills, way, pauses, until)
    return found.by_death


def test_a_kill_that_no_flow_noticed_took_no_time():
    assert recovered([Kill(10, Way.UP, Death.CLOSE)], [])[Death.CLOSE] == [0.0]


def test_a_recovery_lasts_from_the_kill_to_the_end_of_the_pause():
    pauses = [Pause(2, 3), Pause(10.5, 12.0)]
    assert recovered([Kill(10, Way.UP, Death.RESET)], pauses)[Death.RESET] == [2.0]


def test_a_pause_that_begins_long_afterwards_has_another_cause():
    pauses = [Pause(10.5, 14.5), Pause(20, 29)]
    assert recovered([Kill(10, Way.UP, Death.SWALLOW)], pauses)[Death.SWALLOW] == [4.5]


def test_a_pause_that_spans_two_kills_counts_for_both():
    kills = [Kill(12, Way.UP, Death.SWALLOW), Kill(10, Way.UP, Death.CLOSE)]
    found = recovered(kills, [Pause(10.1, 15)])
    assert found[Death.CLOSE] == [5.0]
    assert found[Death.SWALLOW] == [3.0]


def test_kills_of_the_other_direction_are_not_counted():
    assert recovered([Kill(10, Way.DOWN, Death.CLOSE)], [Pause(10, 20)])[Death.CLOSE] == []


def test_the_worst_pause_of_none_is_none():
    assert worst_pause([]) == 0.0
    assert worst_pause([Pause(1, 2), Pause(3, 5.5)]) == 2.5


def storm(**changes):
    made = StormReport(7, 1_000_000_000)
    made.seconds = 30.0
    made.kills = [Kill(10, Way.UP, Death.CLOSE), Kill(20, Way.DOWN, Death.SWALLOW)]
    made.recoveries.by_death[Death.CLOSE] = [0.25]
    made.recoveries.by_death[Death.SWALLOW] = [2.5]
    made.worst_stall = {Way.UP: 0.25, Way.DOWN: 2.4}
    made.memory = {name: Memory(60_000_000, 80_000_000, 70_000_000) for name in ("client", "exit")}
    for key, value in changes.items():
        setattr(made, key, value)
    return made


def test_the_report_tells_recoveries_stalls_memory_and_what_went_wrong():
    text = report.render([storm(), storm()])
    assert "2 storms in 60 s, seed 7: at least 2000 MB up and 2000 MB down, 4 legs killed" in text
    rows = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in text.splitlines() if "|" in line}
    assert [cell.strip() for cell in rows["close"]] == ["2", "0", "0.25 s", "0.25 s"]
    assert [cell.strip() for cell in rows["reset"]] == ["0", "0", "-", "-"]
    assert [cell.strip() for cell in rows["all"]] == ["2", "2", "1.38 s", "2.50 s"]
    assert "worst stall: 0.25 s up, 2.40 s down" in text
    assert "client's resident memory: 60 MB before, 80 at the most, 70 at the end" in text
    assert text.endswith("all hashes equal, no flow reset, one session\n")
    assert "WRONG: the session was not kept" in report.render([storm(errors=["the session was not kept"])])


def test_an_outcome_in_a_line():
    assert Outcome("roaming").line() == "roaming: nothing to say"
    assert Outcome("roaming", ["2 s"], ["lost"]).line() == "roaming: 2 s\n  WRONG: lost"


def test_waiting_in_vain_ends():
    assert wait(lambda: True, 0, "anything") < 60
    with pytest.raises(Gone, match="a miracle: not within 0 s"):
        wait(lambda: False, 0, "a miracle")


def pipe(**changes):
    settings = {"delay": 0.0, "rate": 8e6, "queue": 10_000, "loss": 0.0, "late": 0.0}
    return BadPipe(**{**settings, **changes}, rng=random.Random(1))


def arrived(made):
    return [frame for _, frame in made.on_the_way]


def test_a_bad_road_loses_its_part_of_the_frames():
    made = pipe(loss=0.5, rate=0, queue=0)
    for _ in range(1000):
        made.take(b"frame", time.monotonic())
    assert 400 < made.lost < 600
    assert len(made.on_the_way) == 1000 - made.lost


def test_a_late_frame_is_overtaken_and_arrives_all_the_same():
    made = pipe(late=1.0)
    now = time.monotonic() + 1000
    made.take(b"first", now)
    assert made.next_arrival() == now + HELD
    made._late = 0.0
    made.take(b"second", now)
    made.take(b"third", now + HELD)
    assert arrived(made) == [b"second", b"first", b"third"]
    assert made.overtaken == 1


def test_half_the_rate_takes_twice_the_time():
    made = pipe()
    made.take(b"x" * 1000, 100.0)
    assert made.next_arrival() == pytest.approx(100.001)
    made.on_the_way.clear()
    made.halve_rate()
    made.take(b"x" * 1000, 200.0)
    assert made.next_arrival() == pytest.approx(200.002)


def test_the_command_line_says_what_there_is():
    text = subprocess.run([*CHAOS, "--help"], capture_output=True, text=True, check=True).stdout
    for word in ("--minutes", "--seed", "storm", "roaming", "nginx", "haproxy", "caddy"):
        assert word in text
    wrong = subprocess.run([*CHAOS, "--only", "nonsense"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "nonsense" in wrong.stderr


@pytest.mark.root
def test_who_is_not_root_is_told_so():
    program = "import os; from lab.chaos.main import main; os.seteuid(65534); raise SystemExit(main([]))"
    # who is not root could not write down which lines ran
    environment = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_PROCESS")}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 1
    assert done.stderr == "chaos: this makes network namespaces and needs root: sudo ./scripts/chaos\n"


def test_bytes_that_come_slowly_are_waited_for_and_those_that_do_not_come_are_not():
    moved = iter(range(12))
    assert wait_while_moving(lambda: next(moved) >= 10, lambda: time.monotonic_ns(), 0.05, "all") >= 0.2
    with pytest.raises(Gone, match="all: not within 0 s without a byte"):
        wait_while_moving(lambda: False, lambda: 7, 0.05, "all")
