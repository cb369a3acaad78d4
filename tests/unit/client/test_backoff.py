"""Pauses between attempts: they grow, they are never long, and no two clients wait in step."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halftunnel_vpn.client.backoff import FIRST_DELAY, MAX_DELAY, MIN_DELAY, Backoff


def test_the_bound_doubles_from_one_second_to_a_minute():
    backoff = Backoff(lambda: 1.0)
    assert [backoff.next_delay() for _ in range(9)] == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert (FIRST_DELAY, MAX_DELAY) == (1.0, 60.0)


def test_success_begins_anew():
    backoff = Backoff(lambda: 1.0)
    for _ in range(5):
        backoff.next_delay()
    backoff.reset()
    assert backoff.next_delay() == FIRST_DELAY


def test_a_pause_is_never_nothing():
    backoff = Backoff(lambda: 0.0)
    assert [backoff.next_delay() for _ in range(10)] == [MIN_DELAY] * 10


def test_jitter_uses_the_whole_range():
    backoff = Backoff(random.Random(1).random)
    delays = [backoff.next_delay() for _ in range(1000)][6:]
    assert min(delays) < 2 and max(delays) > 58
    assert sum(delays) / len(delays) == pytest.approx(30, rel=0.1)


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=50))
def test_every_pause_is_within_bounds(numbers):
    values = iter(numbers)
    backoff = Backoff(lambda: next(values))
    bound = FIRST_DELAY
    for _ in numbers:
        assert MIN_DELAY <= backoff.next_delay() <= max(bound, MIN_DELAY)
        bound = min(2 * bound, MAX_DELAY)
