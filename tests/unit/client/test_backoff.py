"""Pauses between attempts: they grow with the outage and no faster, and no two clients wait in step."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halftunnel_vpn.client.backoff import FIRST_DELAY, GROWTH, MAX_DELAY, Backoff

CHANCES = st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=50)


def test_the_bound_grows_by_a_half_from_one_second_to_a_minute():
    backoff = Backoff(lambda: 1.0)
    bounds = [backoff.next_delay() for _ in range(14)]
    assert bounds[:4] == [1, 1.5, 2.25, 3.375]
    assert bounds[10:] == [pytest.approx(57.7, abs=0.1), 60, 60, 60]
    assert (FIRST_DELAY, GROWTH, MAX_DELAY) == (1.0, 1.5, 60.0)


def test_success_begins_anew():
    backoff = Backoff(lambda: 1.0)
    for _ in range(5):
        backoff.next_delay()
    backoff.reset()
    assert backoff.next_delay() == FIRST_DELAY


def test_a_pause_is_never_shorter_than_half_its_bound():
    backoff = Backoff(lambda: 0.0)
    pauses = [backoff.next_delay() for _ in range(14)]
    assert pauses[:3] == [0.5, 0.75, 1.125] and pauses[11:] == [30, 30, 30]


def test_jitter_uses_the_whole_upper_half():
    backoff = Backoff(random.Random(1).random)
    delays = [backoff.next_delay() for _ in range(1000)][11:]
    assert min(delays) < 31 and max(delays) > 59
    assert sum(delays) / len(delays) == pytest.approx(45, rel=0.05)


@given(CHANCES)
def test_every_pause_is_within_bounds(numbers):
    values = iter(numbers)
    backoff = Backoff(lambda: next(values))
    bound = FIRST_DELAY
    for _ in numbers:
        assert bound / 2 <= backoff.next_delay() <= bound
        bound = min(GROWTH * bound, MAX_DELAY)


@given(CHANCES)
def test_a_short_outage_is_never_followed_by_a_long_pause(numbers):
    values = iter(numbers)
    backoff = Backoff(lambda: next(values))
    waited = 0.0
    for _ in numbers:
        pause = backoff.next_delay()
        assert pause <= FIRST_DELAY + waited * (1 + 1e-9)
        waited += pause
