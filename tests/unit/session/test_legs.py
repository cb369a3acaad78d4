"""Policies that choose the leg for the next train."""

from __future__ import annotations

import itertools
from collections import Counter

from halftunnel_vpn.session.legs import RoundRobin, Weighted


def test_round_robin_takes_every_leg_in_turn(make_leg):
    legs = [make_leg() for _ in range(3)]
    policy = RoundRobin()
    chosen = [policy.choose(legs, 0.0).number for _ in range(9)]
    assert Counter(chosen) == {0: 3, 1: 3, 2: 3}
    assert all(one != other for one, other in itertools.pairwise(chosen))


def test_round_robin_with_one_leg_left_takes_it(make_leg):
    policy = RoundRobin()
    only = make_leg()
    assert {policy.choose([only], 0.0) for _ in range(5)} == {only}


def test_weights_share_bytes_in_proportion(make_leg):
    heavy, light = make_leg(weight=3), make_leg(weight=1)
    policy = Weighted()
    for _ in range(400):
        policy.choose([heavy, light], 0.0).bytes_sent += 1000
    assert heavy.bytes_sent == 3 * light.bytes_sent


def test_a_fresh_leg_tells_nothing_yet(leg):
    assert leg.round_trip is None
    assert (leg.bytes_sent, leg.bytes_received, leg.records_sent, leg.records_received) == (0, 0, 0, 0)
