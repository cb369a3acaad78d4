"""Dead or only quiet: what is swallowed is found in time, and what lives is left alone."""

from __future__ import annotations

import pytest

from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.protocol.stream_messages import ResetCode, StreamKind
from halftunnel_vpn.protocol.wire import PacketType
from halftunnel_vpn.session.intervals import IntervalTable
from halftunnel_vpn.session.keepalive import LEG_SILENT
from halftunnel_vpn.session.limits import SessionLimits

UP, DOWN = Direction.UPSTREAM, Direction.DOWNSTREAM
INTERVAL = SessionLimits().keepalive
FOUND_WITHIN = 2.0
"""Seconds: three round trips, which are nothing here, and two seconds."""


def is_keepalive(train: bytes) -> bool:
    return train[3] == PacketType.KEEPALIVE


def keepalives_sent(pair, leg, seconds: float) -> int:
    """How many leave on ``leg`` in so many seconds."""
    before = leg.state.records_sent
    pair.advance(seconds)
    return leg.state.records_sent - before


def busy(pair, sender, seconds: float) -> None:
    """Something is sent twenty times a second."""
    for _ in range(round(seconds * 20)):
        sender.stream.send(b"x" * 500)
        pair.settle()
        pair.advance(0.05)


@pytest.mark.parametrize("road", Direction)
def test_a_busy_leg_that_swallows_everything_is_found_by_whoever_can_replace_it(pair, road):
    client, exit = pair.open()
    sender = client if road is UP else exit
    leg = pair.end(pair.client, road)
    busy(pair, sender, 3.0)
    assert leg.close_reason is None
    pair.swallow(leg)
    busy(pair, sender, FOUND_WITHIN)
    assert leg.close_reason == LEG_SILENT
    other = pair.end(pair.client, DOWN if road is UP else UP)
    assert other.close_reason is None, "the other road has done nothing"


@pytest.mark.parametrize("road", Direction)
def test_datagrams_alone_are_load_as_well(pair, road):
    client, exit = pair.open(StreamKind.UDP)
    sender = client if road is UP else exit
    leg = pair.end(pair.client, road)
    busy(pair, sender, 1.0)
    pair.swallow(leg)
    busy(pair, sender, FOUND_WITHIN)
    assert leg.close_reason == LEG_SILENT


def test_acknowledgements_alone_are_load_as_well(pair):
    _, exit = pair.open()
    busy(pair, exit, 1.0)
    leg = pair.end(pair.client, UP)
    pair.swallow(leg)
    busy(pair, exit, FOUND_WITHIN)
    assert leg.close_reason == LEG_SILENT


def test_the_first_thing_after_a_long_rest_finds_a_leg_that_died_meanwhile(pair):
    client, _ = pair.open()
    pair.advance(INTERVAL * 3 + 1)
    leg = pair.end(pair.client, UP)
    pair.swallow(leg)
    client.stream.send(b"one keystroke")
    pair.settle()
    pair.advance(FOUND_WITHIN)
    assert leg.close_reason == LEG_SILENT


@pytest.mark.parametrize("road", Direction)
def test_an_idle_leg_is_found_within_an_interval_more_by_both_ends(pair, road):
    pair.advance(INTERVAL * 3)
    leg = pair.end(pair.client, road)
    pair.swallow(leg)
    pair.advance(INTERVAL + FOUND_WITHIN)
    assert leg.close_reason == LEG_SILENT
    pair.advance(INTERVAL)
    assert leg.peer.close_reason == LEG_SILENT
    assert pair.client_counters.counted["legs-silent"] == 1


def test_a_leg_is_not_blamed_for_acknowledgements_that_are_lost_on_the_other_road(pair):
    client, _ = pair.open()
    busy(pair, client, 1.0)
    up, down = pair.end(pair.client, UP), pair.end(pair.client, DOWN)
    pair.swallow(down)
    busy(pair, client, INTERVAL + FOUND_WITHIN)
    assert down.close_reason == LEG_SILENT
    assert up.close_reason is None and up.peer.close_reason is None


def test_progress_excuses_a_pong_that_waits_behind_much_data(pair):
    client, _ = pair.open()
    up = pair.end(pair.client, UP)
    up.state.ping_sent = pair.now  # asked, and the answer is far behind
    for _ in range(100):
        client.stream.send(b"x" * 500)
        pair.client.pump(pair.now)
        up.peer.road.clear()  # what the exit says on this leg; it acknowledges on the other
        pair.settle()
        pair.advance(0.1)
    assert up.close_reason is None


def test_a_process_that_was_held_up_blames_no_leg(pair):
    client, _ = pair.open()
    for _ in range(5):
        client.stream.send(b"on its way")
        pair.client.pump(pair.now)
        pair.now += 30.0  # nobody reads the sockets: the timers are run first, as event loops do
        pair.wheel.run(pair.now)
        pair.settle()
        pair.advance(1.0)
    assert [leg.close_reason for leg in pair.legs] == [None] * 4


def test_a_rest_costs_keepalives_at_their_pace_and_nothing_else(pair):
    client, exit = pair.open()
    busy(pair, client, 1.0)
    busy(pair, exit, 1.0)
    pair.advance(1.0)  # the last questions are asked and answered
    for leg in pair.legs:
        assert not leg.state.is_watched and not leg.state.outstanding and not leg.state.owes_proof
    quiet = 20 * INTERVAL
    sent = {leg: keepalives_sent(pair, leg, quiet) for leg in pair.legs}
    for leg, count in sent.items():
        assert quiet / INTERVAL - 1 <= count <= quiet / (INTERVAL * 0.75) + 1, leg.state.direction
    for leg in pair.legs:
        assert leg.state.proofs or leg.state.direction is (DOWN if leg.owner.is_client else UP)


def test_the_exit_follows_the_pace_of_the_client(make_pair):
    pair = make_pair(limits=SessionLimits(keepalive=8.0))
    slow = make_pair(limits=SessionLimits(keepalive=40.0))
    slow.exit._keepalive._interval = 8.0
    for made in (pair, slow):
        made.advance(1.0)
    assert keepalives_sent(pair, pair.end(pair.exit, UP), 400.0) >= 49
    assert keepalives_sent(slow, slow.end(slow.exit, UP), 400.0) <= 15, "no ping of its own between"


def test_an_interval_that_was_learnt_sets_the_pace_and_grows_with_what_the_leg_survives(make_pair):
    pair = make_pair()
    table = IntervalTable(8.0, longest=60.0)
    pair.client._keepalive._intervals = table
    for leg in pair.legs:
        leg.state.domain = "a.example"
    pair.advance(8.0 * 4)
    assert table.interval("a.example") > 8.0
    pair.advance(600.0)
    assert table.interval("a.example") == 60.0
    assert keepalives_sent(pair, pair.end(pair.client, UP), 600.0) <= 14


def test_counts_of_what_is_outstanding_come_to_rest_whatever_happens(make_pair):
    pair = make_pair(2, 2)
    for round_ in range(6):
        client, exit = pair.open()
        client.stream.send(b"x" * 100_000)
        exit.stream.send(b"y" * 100_000)
        pair.client.pump(pair.now)
        pair.exit.pump(pair.now)
        if round_ % 3 == 0:
            pair.kill(pair.end(pair.client, UP))
            pair.add_leg(UP)
        elif round_ % 3 == 1:
            client.stream.reset(ResetCode.NORMAL)
        pair.settle()
    pair.advance(40.0)
    assert [leg.state.outstanding for leg in pair.legs] == [0] * 8
