"""Legs die at any moment; byte streams lose nothing and repeat nothing."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.protocol.opening import ResetCode


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
