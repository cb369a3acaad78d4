"""Streams that end by RESET, from either end or both, at any moment."""

from __future__ import annotations

import contextlib
import random
from collections import deque

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from halftunnel_vpn.errors import StreamClosed, WireError
from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.protocol.stream_messages import OpenRequest, ResetCode, StreamKind, encode_reset
from halftunnel_vpn.protocol.wire import PacketType


def nothing_left(pair):
    pair.advance(30.0)
    assert not pair.client.streams and not pair.exit.streams
    assert not pair.client_counters.dropped and not pair.exit_counters.dropped
    assert pair.client.context.window_pool.available == pair.client.limits.window_pool
    assert pair.exit.context.window_pool.available == pair.exit.limits.window_pool


@pytest.mark.parametrize("kind", [StreamKind.TCP, StreamKind.UDP])
def test_a_stream_given_up_before_its_open_could_leave_is_no_trouble_to_anybody(pair, kind):
    up = pair.end(pair.client, Direction.UPSTREAM)
    up.writable = False
    for _ in range(3):
        pair.ask(kind).stream.reset(ResetCode.NORMAL)
    up.writable = True
    pair.settle()
    assert not pair.requests, "the exit never heard of them"
    nothing_left(pair)
    client, exit = pair.open()
    client.stream.send(b"the number after it")
    pair.settle()
    assert bytes(exit.received) == b"the number after it"


def test_a_stream_whose_open_was_lost_is_given_up(pair):
    up = pair.end(pair.client, Direction.UPSTREAM)
    up.alive = False
    with pytest.raises(KeyError):
        pair.open()
    (stream,) = pair.client.streams.values()
    stream.reset(ResetCode.TIMED_OUT)
    pair.kill(up)
    pair.add_leg(Direction.UPSTREAM)
    pair.settle()
    assert not pair.requests
    nothing_left(pair)


def test_a_reset_that_overtakes_its_open_on_another_leg_opens_nothing(make_pair):
    pair = make_pair(upstream=2)
    slow = pair.end(pair.client, Direction.UPSTREAM)
    (fast,) = [leg for leg in pair.ends(pair.client, Direction.UPSTREAM) if leg is not slow]
    fast.writable = False
    user = pair.ask()
    pair.client.pump(pair.now)
    held, slow.road = slow.road, deque()
    assert held, "the OPEN is on its way"
    slow.writable, fast.writable = False, True
    user.stream.reset(ResetCode.NORMAL)
    pair.settle()
    slow.road, slow.writable = held, True
    pair.settle()
    assert not pair.requests and not pair.exit.streams
    nothing_left(pair)


@pytest.mark.parametrize("first", ["client", "exit", "both"])
@pytest.mark.parametrize("kind", [StreamKind.TCP, StreamKind.UDP, StreamKind.DNS, StreamKind.ICMP])
def test_resets_that_cross_leave_nothing_behind(pair, first, kind):
    client, exit = pair.open(kind)
    if first in ("client", "both"):
        client.stream.reset(ResetCode.NORMAL)
    if first in ("exit", "both"):
        exit.stream.reset(ResetCode.CONNECTION_RESET)
    pair.settle()
    heard = {
        "client": ([], ["aborted NORMAL"]),
        "exit": (["aborted CONNECTION_RESET"], []),
        "both": ([], []),
    }[first]
    assert ([e for e in client.events if e != "opened"], exit.events) == heard
    nothing_left(pair)


def test_a_reset_twice_is_one(pair):
    client, exit = pair.open()
    client.stream.reset(ResetCode.NORMAL)
    client.stream.reset(ResetCode.TIMED_OUT)
    pair.settle()
    client.stream.reset(ResetCode.TIMED_OUT)
    pair.settle()
    assert exit.events == ["aborted NORMAL"]
    nothing_left(pair)


def test_data_in_flight_against_a_reset_is_not_delivered(pair):
    client, exit = pair.open()
    exit.stream.send(b"on its way")
    pair.exit.pump(pair.now)
    client.stream.reset(ResetCode.NORMAL)
    pair.settle()
    assert not client.received and exit.events == ["aborted NORMAL"]
    nothing_left(pair)


def test_a_reset_acts_whatever_is_missing_before_it(pair):
    _client, exit = pair.open()
    pair.inject(pair.exit, pair.packet(PacketType.RESET, 1, 900, 1, encode_reset(ResetCode.REFUSED)))
    assert exit.events == ["aborted REFUSED"]
    assert not pair.exit.streams


def test_an_unknown_code_reads_as_a_connection_that_was_reset(pair):
    _, exit = pair.open()
    pair.inject(pair.exit, pair.packet(PacketType.RESET, 1, 1, 1, b"\xee"))
    assert exit.events == ["aborted CONNECTION_RESET"]


def test_a_reset_of_a_stream_that_finished_both_ways_is_nothing_new(pair):
    client, exit = pair.open()
    client.stream.finish()
    exit.stream.finish()
    pair.client.pump(pair.now)
    pair.exit.pump(pair.now)
    pair.deliver()
    before = list(client.events), list(exit.events)
    for session in (pair.client, pair.exit):
        pair.inject(session, pair.packet(PacketType.RESET, 1, 2, 1, encode_reset(ResetCode.REFUSED)))
    assert (client.events, exit.events) == before
    nothing_left(pair)


def test_after_a_reset_nothing_can_be_sent_and_nothing_breaks(pair):
    client, _ = pair.open()
    client.stream.reset(ResetCode.NORMAL)
    with pytest.raises(StreamClosed):
        client.stream.send(b"x")
    client.stream.finish()
    client.stream.consumed(100)
    datagrams, _ = pair.open(StreamKind.UDP)
    datagrams.stream.close()
    datagrams.stream.send(b"x")
    datagrams.stream.close()
    assert pair.client_counters.dropped == {"datagram-stream-closed": 1}
    pair.settle()
    datagrams.stream.close()
    pair.advance(30.0)
    assert not pair.client.streams and not pair.exit.streams


def test_runs_that_meet_a_reset_on_the_road_are_not_delivered(pair):
    client, exit = pair.open(StreamKind.UDP)
    exit.stream.send(b"too late")
    pair.exit.pump(pair.now)
    client.stream.close()
    pair.settle()
    assert client.events == [] and exit.events == ["aborted NORMAL"]


def test_a_refused_datagram_stream_says_so(pair):
    pair.answer = ResetCode.LIMIT
    client, _ = pair.open(StreamKind.UDP)
    assert client.events == ["refused LIMIT"]
    nothing_left(pair)


def test_a_destination_that_cannot_be_told_takes_nothing(pair):
    for opener in (pair.client.open_stream, pair.client.open_datagrams):
        with pytest.raises(WireError, match="open-bad-name"):
            opener(OpenRequest(StreamKind.TCP, "two..dots", 80, 0), None, pair.now)
    client, _ = pair.open()
    assert client.stream.stream_id == 1, "no number was used"
    client.stream.reset(ResetCode.NORMAL)
    nothing_left(pair)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_random_resets_with_random_deaths_leave_no_stream_and_no_credit_behind(seed, make_pair):
    choose = random.Random(seed)
    pair = make_pair(2, 2, seed=seed)
    users = []
    for _ in range(80):
        action = choose.random()
        if action < 0.2:
            users.append(pair.ask(choose.choice(list(StreamKind))))
        elif action < 0.45 and users:
            user = choose.choice(users + list(pair.exit_users.values()))
            stream = user.stream
            if stream.kind in (StreamKind.UDP, StreamKind.ICMP):
                stream.send(choose.randbytes(100))
            elif size := min(stream.room, choose.choice((1, 3000, 60_000))):
                with contextlib.suppress(StreamClosed):
                    stream.send(bytes(size))
        elif action < 0.6 and users:
            user = choose.choice(users + list(pair.exit_users.values()))
            if choose.random() < 0.5:
                user.stream.reset(choose.choice(list(ResetCode)))
            elif user.stream.kind in (StreamKind.TCP, StreamKind.DNS):
                user.stream.finish()
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
    for user in [*users, *pair.exit_users.values()]:
        user.stream.reset(ResetCode.NORMAL)
    pair.settle(shuffle=True)
    pair.advance(60.0)
    assert not pair.client.streams and not pair.exit.streams
    assert pair.client.context.window_pool.available == pair.client.limits.window_pool
    assert pair.exit.context.window_pool.available == pair.exit.limits.window_pool
    assert not pair.exit._table.numbers.missing, "no number is waited for that will never come"
