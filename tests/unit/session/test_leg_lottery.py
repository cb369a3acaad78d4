"""Batches of records on legs that are drawn by lot."""

from __future__ import annotations

import random
from itertools import groupby

import pytest

from halftunnel_vpn.session.leg_lottery import MAX_BATCH, MAX_WEIGHTS, MIN_BATCH, PAUSE, BatchedWeightedRandom


@pytest.fixture
def policy():
    return BatchedWeightedRandom(random.Random(7).randbytes)


def test_batches_have_their_length_and_every_leg_gets_some(policy, make_leg):
    legs = [make_leg() for _ in range(3)]
    for number, leg in enumerate(legs):
        leg.number = number
    chosen = [policy.choose(legs, index / 100).number for index in range(3000)]
    runs = [len(list(run)) for _, run in groupby(chosen)]
    assert min(runs[:-1]) >= MIN_BATCH
    assert all(length >= MIN_BATCH for length in runs[:-1])
    assert set(chosen) == {0, 1, 2}
    assert sum(MIN_BATCH <= length <= MAX_BATCH for length in runs) > len(runs) / 3


def test_a_leg_that_cannot_be_written_gives_way(policy, make_leg):
    legs = [make_leg(), make_leg()]
    first = policy.choose(legs, 0.0)
    other = next(leg for leg in legs if leg is not first)
    assert policy.choose([other], 0.01) is other
    assert not policy.waits(first, 0.0)


def test_weights_are_drawn_again_for_each_activity_and_belong_to_domains(make_leg):
    policy = BatchedWeightedRandom(random.Random(3).randbytes)
    legs = [make_leg(), make_leg()]
    for number, leg in enumerate(legs):
        leg.number, leg.domain = number, f"{number}.example"
    shares = []
    now = 0.0
    for _ in range(40):
        count = 0
        for _ in range(400):
            now += 0.01
            count += policy.choose(legs, now) is legs[0]
        shares.append(count / 400)
        now += PAUSE
    assert max(shares) > 0.8 and min(shares) < 0.2
    assert 0.3 < sum(shares) / len(shares) < 0.7


def test_the_weights_have_a_bound(policy, make_leg):
    for number in range(3 * MAX_WEIGHTS):
        leg = make_leg()
        leg.number = number
        policy.choose([leg], number / 1000)
    assert len(policy._weights) <= MAX_WEIGHTS
