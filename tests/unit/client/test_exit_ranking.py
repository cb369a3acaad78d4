"""Which exit is used: by priority, by round trip with a margin, or the one that was named."""

from __future__ import annotations

import pytest

from halftunnel_vpn.client.exits.exit_ranking import BY_PRIORITY, ExitChoice, ExitRanking
from halftunnel_vpn.client.exits.exit_status import exit_statuses
from halftunnel_vpn.client.exits.switch_back import MAX_REQUIRED, PROBES, STABLE, SwitchBack

NAMES = ["near", "middle", "far"]


def ranking(choice: ExitChoice = BY_PRIORITY, in_use: str | None = None, **seconds: float) -> ExitRanking:
    made = ExitRanking(NAMES, choice, in_use)
    for name, round_trip in seconds.items():
        made.answered(name, round_trip)
    return made


def test_by_default_priority_decides_and_a_lost_session_returns_to_its_own_exit_first():
    made = ranking(in_use="middle")
    assert made.wanted() == NAMES
    assert made.for_new_session() == ["middle", "near", "far"]
    assert made.for_new_session(is_own_last=True) == ["near", "far", "middle"]
    assert made.others() == ["near", "far"]
    assert made.preferred() == ["near"]


def test_a_named_exit_is_never_left():
    made = ranking(ExitChoice("far"), in_use="far")
    assert made.wanted() == made.for_new_session() == made.for_new_session(is_own_last=True) == ["far"]
    assert made.others() == made.preferred() == []


@pytest.mark.parametrize(
    ("seconds", "in_use", "first"),
    [
        ({"near": 0.120, "middle": 0.060, "far": 0.020}, None, "far"),
        ({"near": 0.025, "middle": 0.020}, None, "near"),  # within the margin priority decides
        ({"near": 0.020, "middle": 0.025}, "middle", "middle"),  # and before that the one in use
        ({"near": 0.020, "middle": 0.031}, "middle", "near"),
        ({"near": 0.200, "middle": 0.235}, "middle", "middle"),  # a fifth of a long way is noise
        ({"near": 0.200, "middle": 0.245}, "middle", "near"),
        ({}, None, "near"),
    ],
)
def test_the_fastest_is_one_by_a_margin(seconds, in_use, first):
    assert ranking(ExitChoice(fastest=True), in_use, **seconds).wanted()[0] == first


def test_an_exit_that_did_not_answer_comes_last_however_fast_it_was():
    made = ranking(ExitChoice(fastest=True), near=0.010, middle=0.050)
    made.failed("near", "it is gone")
    assert made.wanted() == ["middle", "near", "far"]
    states = [(each["name"], each["state"], each["sentence"]) for each in exit_statuses(made, "middle")]
    assert states == [
        ("near", "unreachable", "it is gone"),
        ("middle", "in use", None),
        ("far", "unknown", None),
    ]


def answer(back: SwitchBack, name: str, began: float, seconds: float) -> float:
    now = began
    while now <= began + seconds:
        back.answered(name, now)
        now += back.interval
    return now


def test_a_preferred_exit_is_used_again_after_it_has_answered_for_the_whole_time():
    back = SwitchBack(60.0)
    back.answered("near", 0.0)
    back.answered("near", 59.0)
    assert back.due(["near"], 59.0) is None
    back.answered("near", 60.0)
    assert back.due(["near"], 60.0) == "near"
    back.failed("near")
    assert back.due(["near"], 61.0) is None


def test_few_answers_do_not_count_however_far_apart_they_are():
    back = SwitchBack(1.0)
    for number in range(PROBES):
        assert back.due(["near"], number * 10.0) is None
        back.answered("near", number * 10.0)
    assert back.due(["near"], 30.0) == "near"


def test_an_exit_that_is_lost_soon_after_the_switch_back_must_answer_for_longer_the_next_time():
    back = SwitchBack(60.0)
    now = 0.0
    for expected in (120.0, 240.0, 480.0):
        now = answer(back, "near", now, back.required)
        assert back.due(["near"], now) == "near"
        back.switched("near", now)
        back.lost("near", now + STABLE - 1)
        assert back.required == expected
    for _ in range(10):
        back.switched("near", now)
        back.lost("near", now + 1)
    assert back.required == MAX_REQUIRED
    back.switched("near", now)
    back.lost("near", now + STABLE + 1)  # it has lasted
    assert back.required == 60.0
