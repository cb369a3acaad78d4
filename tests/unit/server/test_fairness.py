"""The exit's processor, shared between clients."""

from __future__ import annotations

import pytest

from halftunnel_vpn.server.fairness import ACTIVE_WITHIN, BURST, OPENING_PRICE, SHARE, Fairness


@pytest.fixture
def fairness():
    return Fairness()


@pytest.fixture
def shares(fairness):
    return fairness.share_of("busy"), fairness.share_of("other")


def test_sessions_of_one_client_have_one_share(fairness, shares):
    assert fairness.share_of("busy") is shares[0] is not shares[1]


def test_who_is_alone_may_do_what_it_likes(shares):
    busy, _ = shares
    assert not any(busy.served(1000, 0.1, 100 + number / 10) for number in range(100))


def test_data_costs_nothing_extra(shares):
    busy, other = shares
    for number in range(100_000):
        now = 100 + number * 0.0005
        assert not busy.served(65_000, 0.0004, now)
        assert not other.served(100, 20e-6, now)


def test_work_beyond_the_burst_makes_a_leg_rest_while_others_are_served(shares):
    busy, other = shares
    now, worked, rested = 100.0, 0.0, 0.0
    while now < 160.0:
        other.served(100, 10e-6, now)
        rest = busy.served(1000, 0.05, now)
        worked += 0.05
        rested += rest
        now += 0.05 + rest
    assert worked <= BURST + 70 * SHARE
    assert worked >= 60 * SHARE / 2
    assert not other.served(100, 10e-6, now), "the other one never rests"


def test_a_debt_is_forgiven_when_nobody_else_is_there_any_more(shares):
    busy, other = shares
    other.served(100, 10e-6, 100.0)
    assert busy.served(1000, 10.0, 100.0) > 10
    assert busy.served(0, 0.0, 100.0 + ACTIVE_WITHIN / 2) > 10
    assert busy.served(0, 0.0, 100.0 + 2 * ACTIVE_WITHIN) == 0


def test_streams_that_are_opened_are_charged_ahead(shares):
    busy, other = shares
    busy.served(0, 0.0, 100.0)
    other.served(100, 10e-6, 100.0)
    for _ in range(int(2 * BURST / OPENING_PRICE)):
        busy.opening()
    assert busy.served(100, 10e-6, 100.0) == pytest.approx(BURST / SHARE, rel=0.5)


def test_an_allowance_comes_back_with_time(shares):
    busy, other = shares
    other.served(100, 10e-6, 100.0)
    rest = busy.served(1000, BURST + 0.1, 100.0)
    assert rest > 0.5
    other.served(100, 10e-6, 100.0 + rest)
    assert busy.served(0, 0.0, 100.01 + rest) == 0


def test_a_client_that_only_pads_is_not_being_served(shares):
    busy, padding = shares
    for number in range(200):
        padding.served(1400, 20e-6, 100.0 + number / 100, False)
    assert not busy.served(1000, 10.0, 102.0), "nobody waits for it"


def test_a_flood_of_padding_is_charged_all_the_same(shares):
    padding, other = shares
    other.served(100, 10e-6, 100.0)
    assert padding.served(50, 1.0, 100.1, False) > 0
