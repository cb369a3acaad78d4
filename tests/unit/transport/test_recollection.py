"""When bbr has forgotten what a leg's road carries, and when the road has really become slower."""

from __future__ import annotations

import pytest

from halftunnel_vpn.transport.kernel.bbr_restart import FORGOTTEN, LOSS_OF_FAITH, NEAR, Estimate, Recollection

FULL = 25_000_000
LEAST = 50_000


class Road(Recollection):
    """A leg's recollection, and looks at the road that need no socket."""

    def sees(self, rate: float, round_trip: int = LEAST, *, is_steady: bool = True) -> bool:
        """Return whether bbr would be restarted."""
        estimate = Estimate(int(rate), is_steady)
        if forgotten := self.has_forgotten(estimate, round_trip, LEAST):
            self.doubt()
        else:
            self.remember(estimate)
        return forgotten


@pytest.fixture
def road() -> Road:
    made = Road()
    assert not made.sees(FULL), "nothing is known yet"
    assert made.best == FULL
    return made


@pytest.mark.parametrize(
    ("rate", "round_trip", "expected"),
    [
        (FULL / 10, LEAST, True),
        (FULL / 10, int(LEAST * NEAR), True),
        (FULL / 10, int(LEAST * NEAR) + 1, False),  # a queue: the road carries no more
        (FULL * FORGOTTEN, LEAST, False),
        (FULL * FORGOTTEN - 1, LEAST, True),
    ],
)
def test_what_counts_as_forgotten(road, rate, round_trip, expected):
    asked = road.has_forgotten(Estimate(int(rate), True), round_trip, LEAST)
    assert asked is expected and road.best == FULL, "to ask changes nothing"
    assert road.sees(rate, round_trip) is expected
    assert road.best == (FULL * LOSS_OF_FAITH if expected else FULL)


@pytest.mark.parametrize("part", [0.5, 0.1, 0.01, 0.001])
def test_a_road_that_has_become_slower_is_tried_a_few_times_only(road, part):
    tries = 0
    while road.sees(FULL * part):
        tries += 1
        assert tries <= 10
    assert 1 <= tries
    assert not road.sees(FULL * part), "and then left alone"


@pytest.mark.parametrize("rate", [10 * FULL, FULL // 10])
def test_what_the_first_phase_sees_is_not_believed_in(road, rate):
    assert not road.sees(rate, is_steady=False)
    assert road.best == FULL


def test_another_congestion_control_has_nothing_to_forget(road):
    assert not road.has_forgotten(None, LEAST, LEAST)
    road.remember(None)
    assert road.best == FULL


def test_a_road_that_is_faster_again_is_remembered_so(road):
    road.sees(FULL / 10)
    assert not road.sees(2 * FULL)
    assert road.best == 2 * FULL
