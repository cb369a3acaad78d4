"""Keepalive intervals are learnt: longer while nothing happens, shorter after a cut that silence explains."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halftunnel_vpn.session.intervals import BAD_FOR, MAX_DOMAINS, SURVIVALS, IntervalTable

WALL = 1_800_000_000.0
CDN = "cdn.example:443"


@pytest.fixture
def table() -> IntervalTable:
    return IntervalTable(8.0, longest=60.0)


def live_on(table: IntervalTable, limit: float, keepalives: int = 200) -> list[float]:
    """Legs on a road that cuts after ``limit`` seconds of silence; the silences that ended with a cut."""
    cuts = []
    for _ in range(keepalives):
        silence = table.interval(CDN)
        if silence > limit:
            table.cut(CDN, limit, WALL)
            cuts.append(limit)
        else:
            table.survived(CDN, silence)
    return cuts


def test_a_domain_begins_carefully_and_alone(table):
    live_on(table, 1000.0)
    assert table.interval(CDN) == 60.0
    assert table.interval("other.example") == 8.0


def test_the_next_longer_interval_needs_several_survivals(table):
    for _ in range(SURVIVALS - 1):
        table.survived(CDN, 8.0)
    assert table.interval(CDN) == 8.0
    table.survived(CDN, 8.0)
    assert table.interval(CDN) == 12.0


def test_a_silence_much_shorter_than_the_interval_says_nothing(table):
    for _ in range(20):
        table.survived(CDN, 3.0)
    assert table.interval(CDN) == 8.0


@pytest.mark.parametrize("limit", [3.0, 10.0, 15.0, 30.0, 45.0, 55.0])
def test_a_road_with_an_idle_limit_is_cut_once_or_twice_and_then_never_again(table, limit):
    cuts = live_on(table, limit)
    assert 1 <= len(cuts) <= 3
    assert limit * 0.4 < table.interval(CDN) < limit


def test_a_cut_at_a_silence_that_was_survived_before_is_not_blamed_on_silence(table):
    live_on(table, 1000.0)
    table.cut(CDN, 50.0, WALL)
    assert table.interval(CDN) == 60.0
    table.survived(CDN, 60.0)
    table.cut(CDN, 50.0, WALL)
    assert table.interval(CDN) == 60.0, "in between it was survived again"


def test_a_limit_that_became_shorter_is_learnt_from_two_like_cuts(table):
    live_on(table, 1000.0)
    table.cut(CDN, 59.0, WALL)
    table.cut(CDN, 57.0, WALL)
    assert table.interval(CDN) < 57.0


def test_a_cut_in_the_middle_of_traffic_says_nothing(table):
    table.cut(CDN, 0.5, WALL)
    table.cut(CDN, 0.5, WALL)
    assert table.interval(CDN) == 8.0 and table.changes == 0


def test_what_was_learnt_survives_a_restart(table):
    live_on(table, 30.0)
    again = IntervalTable(8.0, longest=60.0)
    assert again.load(table.export(), WALL + 60) == 0
    assert again.interval(CDN) == table.interval(CDN)
    assert not live_on(again, 30.0), "the limit is remembered as well"


def test_a_cut_is_forgotten_after_a_while(table):
    live_on(table, 30.0)
    again = IntervalTable(8.0, longest=60.0)
    again.load(table.export(), WALL + BAD_FOR + 1)
    live_on(again, 1000.0)
    assert again.interval(CDN) == 60.0


def test_the_table_is_bounded(table):
    for number in range(3 * MAX_DOMAINS):
        table.survived(f"{number}.example", 8.0)
    assert len(table.export()) == MAX_DOMAINS
    stored = {f"{number}.example": {"interval": 9.0} for number in range(1000)}
    again = IntervalTable()
    again.load(stored, WALL)
    assert len(again.export()) <= MAX_DOMAINS


@pytest.mark.parametrize(
    "stored",
    [None, [], "text", {"a": None}, {"a": {}}, {"a": {"interval": "8"}}, {"a": {"interval": -1}},
     {"a": {"interval": math.nan}}, {"a": {"interval": 1e300}}, {"a": {"interval": 8, "cut": []}}],
)  # fmt: skip
def test_a_file_that_makes_no_sense_changes_nothing(table, stored):
    table.load(stored, WALL)
    assert table.interval("a") == 8.0 and not table.export()


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1000)), max_size=200))
def test_an_interval_stays_within_its_bounds(events):
    table = IntervalTable(8.0, longest=60.0)
    for is_cut, silence in events:
        if is_cut:
            table.cut(CDN, silence, WALL)
        else:
            table.survived(CDN, silence)
        assert 2.0 <= table.interval(CDN) <= 60.0
