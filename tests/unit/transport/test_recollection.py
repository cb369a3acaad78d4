"""When bbr has forgotten what a leg's road carries, and when the road has really become slower."""

from __future__ import annotations

import pytest

from halftunnel_vpn.transport.recollection import FORGOTTEN, LOSS_OF_FAITH, NEAR, Estimate, Recollection

FULL = 25_000_000
LEAST = 50_000


def steady(rate: float) -> Estimate:
    return Estimate(int(rate), is_steady=True)


@pytest.fixture
def recollection() -> Recollection:
    made = Recollection()
    assert not made.has_forgotten(steady(FULL), LEAST, LEAST), "nothing is known yet"
    assert made.best == FULL
    return made


@pytest.mark.parametrize(
    ("estimate", "round_trip", "expected"),
    [
        (steady(FULL / 10), LEAST, True),
        (steady(FULL / 10), int(LEAST * NEAR), True),
        (steady(FULL / 10), int(LEAST * NEAR) + 1, False),  # a queue: the road carries no more
        (steady(FULL * FORGOTTEN), LEAST, False),
        (steady(FULL * FORGOTTEN - 1), LEAST, True),
        (Estimate(FULL // 10, is_steady=False), LEAST, False),  # it is finding out
        (None, LEAST, False),  # another congestion control
    ],
)
def test_what_counts_as_forgotten(recollection, estimate, round_trip, expected):
    assert recollection.has_forgotten(estimate, round_trip, LEAST) is expected
    assert recollection.best == (FULL * LOSS_OF_FAITH if expected else FULL)


@pytest.mark.parametrize("part", [0.5, 0.1, 0.01, 0.001])
def test_a_road_that_has_become_slower_is_tried_a_few_times_only(recollection, part):
    tries = 0
    while recollection.has_forgotten(steady(FULL * part), LEAST, LEAST):
        tries += 1
        assert tries <= 10
    assert 1 <= tries
    assert not recollection.has_forgotten(steady(FULL * part), LEAST, LEAST), "and then left alone"


def test_what_the_first_phase_sees_is_not_believed_in(recollection):
    assert not recollection.has_forgotten(Estimate(10 * FULL, is_steady=False), LEAST, LEAST)
    assert recollection.best == FULL


def test_a_road_that_is_faster_again_is_remembered_so(recollection):
    recollection.has_forgotten(steady(FULL / 10), LEAST, LEAST)
    assert not recollection.has_forgotten(steady(2 * FULL), LEAST, LEAST)
    assert recollection.best == 2 * FULL
