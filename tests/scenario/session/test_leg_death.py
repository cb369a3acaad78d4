"""Legs die at any moment; byte streams lose nothing and repeat nothing."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.protocol.stream_messages import ResetCode


def test_what_a_dead_leg_carried_goes_out_on_its_successor(pair):
    client, exit = pair.open()
    leg = next(leg for leg in pair.legs if leg.owner is pair.client)
    client.stream.send(b"lost on the road")
    pair.client.pump(pair.now)
    pair.kill(leg)
    pair.settle()
    assert not exit.received
    pair.add_leg(Direction.UPSTREAM)
    pair.settle()
    assert bytes(exit.received) == b"lost on the road"


def test_what_arrived_before_the_leg_died_is_not_delivered_twice(pair):
    client, exit = pair.open()
    leg = next(leg for leg in pair.legs if leg.owner is pair.client)
    client.stream.send(b"once")
    pair.client.pump(pair.now)
    pair.kill(leg, lose=False)
    pair.add_leg(Direction.UPSTREAM)
    pair.settle()
    assert bytes(exit.received) == b"once"


def test_an_open_that_is_lost_is_asked_again(pair):
    leg = next(leg for leg in pair.legs if leg.owner is pair.client)
    leg.alive = False
    with pytest.raises(KeyError):
        pair.open()  # the exit has not heard of it
    pair.kill(leg)
    pair.add_leg(Direction.UPSTREAM)
    pair.settle()
    assert len(pair.exit_users) == 1 and len(pair.client.streams) == 1


def test_a_lost_reset_is_sent_again(pair):
    client, exit = pair.open()
    leg = next(leg for leg in pair.legs if leg.owner is pair.client)
    client.stream.reset(ResetCode.NORMAL)
    pair.client.pump(pair.now)
    pair.kill(leg)
    pair.add_leg(Direction.UPSTREAM)
    pair.settle()
    assert exit.events == ["aborted NORMAL"]


def test_a_lost_acknowledgement_of_a_stream_that_is_over_is_given_again(pair):
    client, exit = pair.open()
    exit.stream.finish()
    client.stream.finish()
    pair.settle()
    # the client's acknowledgement of the exit's FIN waits for its delay: lose the leg that takes it
    leg = next(leg for leg in pair.legs if leg.owner is pair.client)
    leg.alive = False
    pair.advance(0.1)
    pair.kill(leg)
    pair.add_leg(Direction.UPSTREAM)
    pair.advance(30.0)
    assert not pair.client.streams and not pair.exit.streams


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), legs=st.integers(1, 3))
def test_random_deaths_leave_streams_whole(seed, legs, make_pair):
    choose = random.Random(seed)
    pair = make_pair(legs, legs, seed=seed)
    users = [pair.open() for _ in range(3)]
    expected = [(bytearray(), bytearray()) for _ in users]
    finished = [[False, False] for _ in users]
    for _ in range(60):
        action = choose.random()
        if action < 0.5:
            index, side = choose.randrange(3), choose.randrange(2)
            user = users[index][side]
            size = min(user.stream.room, choose.choice((1, 100, 5000, 65000)))
            if size and not finished[index][side]:
                data = choose.randbytes(size)
                user.stream.send(data)
                expected[index][side].extend(data)
        elif action < 0.6:
            index, side = choose.randrange(3), choose.randrange(2)
            finished[index][side] = True
            users[index][side].stream.finish()
        elif action < 0.75:
            pair.client.pump(pair.now)
            pair.exit.pump(pair.now)
        elif action < 0.85:
            pair.deliver(shuffle=True)
        elif action < 0.95 and pair.legs:
            pair.kill(choose.choice(pair.legs), lose=choose.random() < 0.7)
        else:
            pair.add_leg(choose.choice(list(Direction)))
    pair.add_leg(Direction.UPSTREAM)
    pair.add_leg(Direction.DOWNSTREAM)
    pair.settle(shuffle=True)
    for (client, exit), (up, down) in zip(users, expected, strict=True):
        assert bytes(exit.received) == bytes(up)
        assert bytes(client.received) == bytes(down)
    for (client, exit), _ in zip(users, expected, strict=True):
        client.stream.finish()
        exit.stream.finish()
    pair.settle(shuffle=True)
    pair.advance(60.0)
    assert not pair.client.streams and not pair.exit.streams
    assert not pair.client_counters.dropped and not pair.exit_counters.dropped


# --- legs that are lost by being used: their key has sealed all that it may --------------------------


@pytest.fixture
def use_up(pair):
    """Have a leg closed, at its own end first, by the next train that is to leave on it."""

    def arrange(leg):
        def send_train(parts):
            leg.send_train = lambda parts: 0
            pair.hang_up(leg)
            return 0

        leg.send_train = send_train

    return arrange


def test_a_leg_that_a_ping_uses_up_is_gone_and_no_more(pair, use_up):
    client, exit = pair.open()
    pair.advance(1.0)
    up, down = (pair.end(pair.client, direction) for direction in Direction)
    assert not up.state.is_watched and not down.state.is_watched
    use_up(up)
    use_up(down)
    pair.advance(30.0)
    assert not pair.legs and not pair.client.legs
    for direction in Direction:
        pair.add_leg(direction)
    client.stream.send(b"goes on")
    pair.advance(1.0)
    assert bytes(exit.received) == b"goes on"


def test_a_leg_that_data_use_up_is_gone_and_no_more(pair, use_up):
    client, exit = pair.open()
    pair.advance(1.0)
    use_up(pair.end(pair.client, Direction.UPSTREAM))
    client.stream.send(b"goes out on the next one")
    pair.settle()
    pair.add_leg(Direction.UPSTREAM)
    pair.settle()
    assert bytes(exit.received) == b"goes out on the next one"


def test_a_leg_that_is_used_up_when_it_is_in_doubt_is_not_dead_as_well(pair, use_up):
    client, _ = pair.open()
    pair.advance(1.0)
    up = pair.end(pair.client, Direction.UPSTREAM)
    client.stream.send(b"is not acknowledged")
    pair.client.pump(pair.now)
    pair.swallow(up)
    use_up(up)
    pair.advance(30.0)
    assert up not in pair.legs
    assert not pair.client_counters.counted["legs-silent"]


def test_all_legs_are_asked_and_told_even_if_that_uses_one_up(pair, use_up):
    pair.add_leg(Direction.UPSTREAM)
    pair.add_leg(Direction.UPSTREAM)
    pair.settle()
    first, *others = pair.ends(pair.client, Direction.UPSTREAM)
    for round_, act in enumerate(
        (
            lambda: pair.client.leg_set.doubt_all(pair.now),
            lambda: pair.client.close(ResetCode.SHUTDOWN, pair.now),
        )
    ):
        if round_:
            first, *others = others
        use_up(first)
        before = [leg.carried for leg in others]
        act()
        assert all(leg.carried > count for leg, count in zip(others, before, strict=True))


def test_what_still_comes_in_on_a_leg_that_this_end_has_closed_is_taken(pair):
    """The closing handshake takes a while, in which the peer's records arrive."""
    client, exit = pair.open()
    pair.advance(1.0)
    down = pair.end(pair.client, Direction.DOWNSTREAM)
    assert not down.state.is_watched
    exit.stream.send(b"was on its way")
    pair.exit.pump(pair.now)
    pair.client.leg_lost(down.state, pair.now)
    pair.deliver()
    assert bytes(client.received) == b"was on its way"
