"""Scores of record logs, and when the promise of a mode is broken."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from halftunnel_vpn.audit import measures
from halftunnel_vpn.audit.observation import AuditRecord, Observation, Source, activities
from halftunnel_vpn.audit.record_log import read_log
from halftunnel_vpn.audit.report import render
from halftunnel_vpn.audit.verdict import AuditVerdict, judge
from halftunnel_vpn.cli.main import main
from halftunnel_vpn.errors import UsageError

Change = Callable[[dict[str, Any]], None]


def clocked(mode: str, change: Change = lambda record: None, *, activities: int = 4) -> list[str]:
    """A log of some activities with a clock of 1400 B each 10 ms up, and one of 1400 B each 2 ms down."""
    draw = random.Random(7)
    lines = [json.dumps({"halftunnel_audit": 1, "mode": mode, "version": "0.1.0", "started": 1.0})]
    records = []
    for activity in range(activities):
        for direction, leg, tick, count in (("up", 0, 0.01, 200), ("down", 1, 0.002, 1000)):
            for number in range(count):
                pad = 1400 - 90 if draw.random() < 0.7 else draw.randrange(600)
                records.append({
                    "t": activity * 10 + number * tick, "dir": direction, "leg": leg, "domain": leg,
                    "size": 1400, "pad": pad, "late": draw.random() * 0.001, "slot": True, "escape": None,
                })  # fmt: skip
    records.sort(key=lambda record: record["t"])
    for record in records:
        change(record)
        lines.append(json.dumps(record))
    return [f"{line}\n" for line in lines]


def verdict(lines: Iterable[str]) -> AuditVerdict:
    return judge(read_log(lines))


def test_a_clock_that_is_kept_keeps_the_promise():
    found = verdict(clocked("strong"))
    assert found.broken == found.unjudged == []
    a, b, whole = found.paths
    assert (a.cell, a.off_slot, a.off_size, a.size_entropy) == (1400, 0, 0, 0.0)
    assert b.lateness_auc is not None and b.lateness_auc < 0.55
    assert a.activities == whole.activities == 4
    assert whole.bits_per_activity == 0.0
    assert whole.overhead is not None and whole.overhead > 1
    assert "kept" in render(found)


def late_padding(record: dict[str, Any]) -> None:
    if record["pad"] == 1310:
        record["late"] += 0.0005


def off_size(record: dict[str, Any]) -> None:
    if record["t"] == 10.5 and record["dir"] == "up":
        record["size"], record["pad"] = 300, 0


def off_slot(record: dict[str, Any]) -> None:
    if record["t"] == 10.5 and record["dir"] == "up":
        record["slot"] = False


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (late_padding, "lateness distinguishes"),
        (off_size, "1 of 800 records have another size"),
        (off_slot, "1 of 800"),
    ],
)
def test_each_way_of_breaking_the_promise_is_found(change: Change, problem: str):
    found = verdict(clocked("split", change))
    assert any(problem in line for line in found.broken), found.broken
    assert "BROKEN" in render(found)


def arrivals(drift: float, late_padding: float) -> list[AuditRecord]:
    """Records of an exit's clock as they arrive: their slots are at times of a clock that goes wrong."""
    draw = random.Random(3)
    found = []
    for number in range(2000):
        is_padding = draw.random() < 0.5
        at = 0.0037 + number * 0.01 * (1 + drift) + draw.random() * 0.004
        at += late_padding if is_padding else 0.0
        found.append(AuditRecord(at, False, "1", 1400, 1310 if is_padding else 300, None, True))
    return found


@pytest.mark.parametrize("drift", [0.0, 1e-4])
def test_the_lateness_of_the_exits_records_is_seen_in_their_arrivals(drift):
    even = measures.lateness(measures.arrival_lateness(arrivals(drift, 0.0)))
    uneven = measures.lateness(measures.arrival_lateness(arrivals(drift, 0.001)))
    assert even is not None and even.area < 0.55
    assert uneven is not None and uneven.area > 0.6
    assert measures.lateness(arrivals(drift, 0.001)) is None, "the log itself does not say"


def test_a_declared_escape_breaks_nothing_and_is_counted():
    def escape(record: dict[str, Any]) -> None:
        if record["t"] < 0.1 and record["dir"] == "up":
            record.update(size=77, pad=0, slot=False, late=None, escape="bulk")

    found = verdict(clocked("split", escape))
    assert found.broken == []
    assert found.paths[0].escapes == {"bulk": 10}


def test_split_promises_nothing_of_path_b_and_off_nothing_at_all():
    def spoil(record: dict[str, Any]) -> None:
        if record["dir"] == "down":
            record.update(size=1400 + int(record["t"] * 1000) % 700, slot=False)

    assert verdict(clocked("split", spoil)).broken == []
    assert len(verdict(clocked("strong", spoil)).broken) == 2
    assert verdict(clocked("off", spoil)).broken == []


def test_little_is_not_judged_rather_than_praised():
    found = verdict(clocked("split", activities=0))
    assert found.broken == []
    assert found.unjudged == ["path A: nothing was sent"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "empty"),
        ("nonsense\n", "line 1"),
        ('{"mode": "off"}\n', "neither"),
        ('{"halftunnel_audit": 2, "mode": "off"}\n', "version 2"),
        ('{"halftunnel_audit": 1, "mode": "loud"}\n', "in which mode"),
        ('{"halftunnel_audit": 1, "mode": "off"}\n[]\n', "line 2"),
        ('{"halftunnel_audit": 1, "mode": "off"}\n{"t": 1}\n', "line 2"),
        ('{"halftunnel_audit": 1, "mode": "off"}\n{"t": 1,\n{}\n', "line 2"),
        (
            '{"halftunnel_audit": 1, "mode": "off"}\n'
            '{"t": 0, "dir": "up", "leg": 0, "size": 5, "pad": 6, "late": null, "slot": true}\n',
            "line 2",
        ),
    ],
)
def test_what_is_no_log_is_refused_with_its_line(text: str, problem: str):
    with pytest.raises(UsageError, match=problem):
        read_log(text.splitlines(keepends=True))


def test_a_log_that_is_still_written_may_end_in_the_middle_of_a_line():
    lines = clocked("split")
    whole = read_log(lines)
    assert read_log([*lines, lines[-1][:30]]).records == whole.records


def test_entropy_and_bits_are_those_of_the_definition():
    assert measures.entropy([1, 2, 3, 4]) == 2.0
    assert measures.entropy([7] * 9) == measures.entropy([]) == 0.0
    unlike = [[AuditRecord(0, True, "1", 4096 * (number + 1))] for number in range(8)]
    assert measures.bits(unlike, clocked=False) == 3.0
    assert measures.bits(unlike, clocked=True) == 0.0
    stops = [[AuditRecord(0, True, "1", 1), AuditRecord(0.5 * 1.5**k, True, "1", 1)] for k in (0, 1, 1, 0)]
    assert measures.bits(stops, clocked=True) == 1.0


def test_the_echo_of_acknowledgements_is_heard_and_a_clock_is_silent():
    draw = random.Random(1)
    down = [
        AuditRecord(draw.choice((1, 2, 5, 8)) + draw.random() * 0.3, False, "2", 1400) for _ in range(600)
    ]
    acknowledgements = [AuditRecord(record.at + 0.03, True, "1", 90) for record in down[::10]]
    clock = [AuditRecord(number * 0.01, True, "1", 1400) for number in range(1000)]
    assert measures.echo(acknowledgements, down, 10.0) > 0.7
    assert measures.echo(clock, down, 10.0) == 0.0


def handshake(at: float) -> list[AuditRecord]:
    return [
        AuditRecord(at, True, "1", 640),
        AuditRecord(at + 0.05, False, "2", 1400), AuditRecord(at + 0.051, False, "2", 1700),
        AuditRecord(at + 0.1, True, "1", 180), AuditRecord(at + 0.15, False, "2", 900),
    ]  # fmt: skip


def test_handshakes_are_found_on_merged_paths_alone_and_never_in_a_clock():
    both = [record for number in range(5) for record in handshake(number * 10)]
    seen = Observation(Source.CAPTURE, None, both)
    assert [path.four_bursts for path in judge(seen).paths] == [0, 0, 5]
    ticks = sorted(
        [AuditRecord(number * 0.01, True, "1", 1400) for number in range(500)]
        + [AuditRecord(number * 0.002 + 0.001, False, "2", 1400) for number in range(2500)]
    )
    assert measures.four_bursts(ticks) == 0


def test_activities_end_with_a_second_of_silence_and_keepalives_are_none():
    records = [AuditRecord(at, True, "1", size) for at, size in ((0, 9000), (0.9, 100), (2, 80), (4, 5000))]
    assert [len(each) for each in activities(records)] == [2, 1]


def test_lateness_with_ties_is_worth_half():
    same = [AuditRecord(0, True, "1", 1400, pad, 0.001, True) for pad in [1300] * 60 + [10] * 60]
    assert measures.lateness(same) == pytest.approx((0.5, 0.053), abs=0.001)
    apart = [
        AuditRecord(0, True, "1", 1400, pad, late, True)
        for pad, late in [(1300, 0.1)] * 60 + [(10, 0.2)] * 60
    ]
    separation = measures.lateness(apart)
    assert separation is not None and separation.area == 1.0
    assert measures.lateness(same[:70]) is None


def test_the_command_reports_and_its_exit_code_is_the_promise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    good.write_text("".join(clocked("split")))
    bad.write_text("".join(clocked("split", off_slot)))
    assert main(["audit", str(good)]) == 0
    assert "path A (upstream): 800 records" in capsys.readouterr().out
    assert main(["audit", str(bad), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["paths"][0]["off_slot"] == 1
    assert main(["audit", str(good), str(bad)]) == 2
    assert main(["audit", str(good), "--mode", "strong"]) == 2
    assert main(["audit", str(tmp_path / "none")]) == 1
    assert "cannot be read" in capsys.readouterr().err


def test_a_picture_without_matplotlib_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    log = tmp_path / "log.jsonl"
    log.write_text("".join(clocked("split")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "matplotlib", None)
        assert main(["audit", str(log), "--png", str(tmp_path / "p.png")]) == 1
    assert "pip install 'matplotlib" in capsys.readouterr().err
