"""The demo's tables, and how it judges what the roads carried."""

from __future__ import annotations

import pytest
from lab.demo.checks import splits
from lab.demo.report import Verdict, print_traffic, print_verdicts
from lab.demo.traffic import RoadTraffic, Traffic

MILLION = 1_000_000
NOTHING = RoadTraffic(0, 0, 0, 0)


def verdicts(title: str, a: RoadTraffic, b: RoadTraffic) -> list[bool]:
    return [verdict.good for verdict in splits({title: Traffic(a, b)})]


@pytest.mark.parametrize(
    ("title", "a", "b", "good"),
    [
        ("100 MB upload, IPv4", (100 * MILLION, MILLION), (0, 0), [True]),
        ("100 MB upload, IPv4", (100 * MILLION, 3 * MILLION), (0, 0), [False]),
        ("100 MB upload, IPv4", (1000, 0), (100 * MILLION, 0), [False]),
        ("100 MB download, IPv4", (500_000, 0), (0, 100 * MILLION), [True, True]),
        ("100 MB download, IPv4", (2 * MILLION, 0), (0, 100 * MILLION), [True, False]),
        ("100 MB download, IPv4", (0, 0), (3 * MILLION, 100 * MILLION), [False, False]),
        ("100 MB download, IPv4", (0, 100 * MILLION), (0, 1000), [False, True]),
        ("100 MB download, IPv4", (0, 0), (0, 0), [False, True]),
    ],
)
def test_each_road_must_go_its_own_way(title, a, b, good):
    assert verdicts(title, RoadTraffic(*a, 0, 0), RoadTraffic(*b, 0, 0)) == good


def test_the_table_of_traffic_tells_payload_and_wire(capsys):
    road = RoadTraffic(1234567, 89, 1300000, 100)
    print_traffic({"100 MB upload, IPv4": Traffic(road, NOTHING)})
    _, head, line, first, second = capsys.readouterr().out.splitlines()
    assert head.split("  ")[-1] == "B down" and set(line) == {"-", " "}
    assert first.split() == ["100", "MB", "upload,", "IPv4", "1,234,567", "89", "0", "0"]
    assert second.split()[-4:] == ["1,300,000", "100", "0", "0"]


def test_one_bad_verdict_spoils_all(capsys):
    assert print_verdicts([Verdict("a", True, "x")], 1.0)
    assert "The tunnel works; 1.0 s in all." in capsys.readouterr().out
    assert not print_verdicts([Verdict("a", True, "x"), Verdict("b", False, "y")], 1.0)
    said = capsys.readouterr().out
    assert "FAILED   b     y" in said and "1 of 2 failed" in said
