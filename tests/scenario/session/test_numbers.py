"""Sequence numbers around 2**32: streams that live long enough to see them wrap."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from halftunnel_vpn.errors import SessionExpired
from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.protocol.stream_messages import ResetCode, encode_credit
from halftunnel_vpn.protocol.wire import PacketType
from halftunnel_vpn.session.send_side import RING, SERIAL_MASK


def age(users, number):
    """Both directions of a stream have sent and acknowledged ``number`` packets."""
    for one, other in (users, users[::-1]):
        one.stream.sending.next_sequence = one.stream.sending.acknowledged = number
        other.stream.receiving.expected = number


@pytest.fixture
def old_stream(pair):
    """A stream whose numbers are about to wrap in both directions."""
    users = pair.open()
    pair.advance(0.1)
    age(users, (1 << 32) - 5)
    return users


def test_bytes_cross_the_wrap_both_ways(pair, old_stream):
    client, exit = old_stream
    for number in range(20):
        client.stream.send(b"u%d " % number)
        exit.stream.send(b"d%d " % number)
        pair.settle()
    client.stream.finish()
    exit.stream.finish()
    pair.settle()
    assert bytes(exit.received) == b"".join(b"u%d " % number for number in range(20))
    assert bytes(client.received) == b"".join(b"d%d " % number for number in range(20))
    assert client.stream.receiving.expected > 1 << 32
    pair.advance(1.0)
    assert not pair.client.streams and not pair.exit.streams
    assert not pair.client_counters.dropped and not pair.exit_counters.dropped


def test_what_a_dead_leg_carried_across_the_wrap_comes_again_in_order(pair, old_stream):
    client, exit = old_stream
    up = pair.end(pair.client, Direction.UPSTREAM)
    for number in range(12):
        client.stream.send(b"%d " % number)
        pair.client.pump(pair.now)
    pair.kill(up)
    pair.add_leg(Direction.UPSTREAM)
    pair.settle()
    assert bytes(exit.received) == b"".join(b"%d " % number for number in range(12))


def test_a_reset_across_the_wrap_is_acknowledged(pair, old_stream):
    client, exit = old_stream
    client.stream.sending.next_sequence = client.stream.sending.acknowledged = SERIAL_MASK
    exit.stream.receiving.expected = SERIAL_MASK
    client.stream.reset(ResetCode.NORMAL)
    pair.settle()
    assert exit.events == ["aborted NORMAL"]
    pair.advance(1.0)
    assert not pair.client.streams and not pair.exit.streams


def test_bounds_hold_across_the_wrap(pair, old_stream):
    _client, exit = old_stream
    expected = exit.stream.receiving.expected
    pair.inject(
        pair.exit, pair.packet(PacketType.DATA, 1, (expected + RING - 1) & SERIAL_MASK, expected, b"x")
    )
    assert not pair.exit_counters.dropped
    pair.inject(pair.exit, pair.packet(PacketType.ACK, 1, 0, (expected + 1) & SERIAL_MASK, encode_credit(0)))
    assert pair.exit_counters.dropped == {"ack-never-sent": 1}
    assert exit.events == ["aborted PROTOCOL_ERROR"]


def test_the_last_stream_number_is_used_and_then_the_session_is_at_its_end(pair):
    pair.client._table.numbers.highest = SERIAL_MASK - 1
    pair.exit._table.numbers.highest = SERIAL_MASK - 1
    client, exit = pair.open()
    assert client.stream.stream_id == SERIAL_MASK
    client.stream.send(b"the last one")
    pair.settle()
    assert bytes(exit.received) == b"the last one"
    with pytest.raises(SessionExpired):
        pair.open()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), start=st.integers((1 << 32) - 40, (1 << 32) + 5))
def test_random_deaths_around_the_wrap_leave_the_stream_whole(seed, start, make_pair):
    choose = random.Random(seed)
    pair = make_pair(2, 2, seed=seed)
    users = pair.open()
    pair.advance(0.1)
    age(users, start)
    sent = [bytearray(), bytearray()]
    for _ in range(60):
        action = choose.random()
        side = choose.randrange(2)
        if action < 0.6 and (size := min(users[side].stream.room, choose.choice((1, 100, 40_000)))):
            data = choose.randbytes(size)
            users[side].stream.send(data)
            sent[side] += data
            (pair.client, pair.exit)[side].pump(pair.now)
        elif action < 0.8:
            pair.deliver(shuffle=True)
        elif action < 0.9 and pair.legs:
            pair.kill(choose.choice(pair.legs))
        else:
            pair.add_leg(choose.choice(list(Direction)))
    pair.add_leg(Direction.UPSTREAM)
    pair.add_leg(Direction.DOWNSTREAM)
    pair.settle(shuffle=True)
    assert bytes(users[1].received) == bytes(sent[0])
    assert bytes(users[0].received) == bytes(sent[1])
    assert not pair.client_counters.dropped and not pair.exit_counters.dropped
