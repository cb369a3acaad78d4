"""The pool of credit that all streams of a session share: nothing leaks, nobody starves."""

from __future__ import annotations

import pytest

from halftunnel_vpn.protocol.stream_messages import ResetCode
from halftunnel_vpn.session.limits import SessionLimits
from halftunnel_vpn.session.receive_side import INITIAL_WINDOW, MIN_WINDOW

POOL = 4 * 1024 * 1024


@pytest.fixture
def pair(make_pair):
    return make_pair(limits=SessionLimits(window_pool=POOL))


def push(pair, user, size):
    while size:
        room = min(user.stream.room, size, 65_000)
        assert room, "the stream stands still"
        user.stream.send(bytes(room))
        size -= room
        pair.settle()


def whole(pair):
    return pair.client.context.window_pool.available == pair.exit.context.window_pool.available == POOL


@pytest.mark.parametrize(
    "end", ["finish", "reset-client", "reset-exit", "close", "peer-goodbye", "violation"]
)
def test_a_stream_gives_back_what_it_took_however_it_ends(pair, end):
    client, exit = pair.open()
    push(pair, exit, 3_000_000)
    push(pair, client, 3_000_000)
    assert client.stream.receiving.window.size > INITIAL_WINDOW
    assert exit.stream.receiving.window.size > INITIAL_WINDOW
    assert not whole(pair)
    if end == "finish":
        client.stream.finish()
        exit.stream.finish()
    elif end == "reset-client":
        client.stream.reset(ResetCode.NORMAL)
    elif end == "reset-exit":
        exit.stream.reset(ResetCode.NORMAL)
    elif end == "close":
        pair.client.close(ResetCode.SHUTDOWN, pair.now, tell_peer=False)
        pair.exit.close(ResetCode.SHUTDOWN, pair.now, tell_peer=False)
    elif end == "peer-goodbye":
        pair.client.ended_by_peer(pair.now)
        pair.exit.ended_by_peer(pair.now)
    else:
        for session in (pair.client, pair.exit):
            pair.inject(session, pair.packet(2, 1, 0, 30_000, bytes(8)))
    if not pair.client.is_closed:
        pair.settle()
        pair.advance(1.0)
    assert whole(pair)


def test_a_user_that_reads_on_after_the_end_takes_no_credit_for_it(pair):
    client, exit = pair.open()
    client.reads = False
    client.stream.finish()
    push(pair, exit, INITIAL_WINDOW)
    exit.stream.finish()
    pair.settle()
    pair.advance(1.0)
    assert not pair.client.streams and client.unread == INITIAL_WINDOW
    assert whole(pair)
    for _ in range(100):
        client.stream.consumed(client.unread // 100)
    assert whole(pair)
    pair.client.pump(pair.now)
    pair.exit.pump(pair.now)
    assert not pair.deliver(), "nor is the peer told"


def test_an_empty_pool_leaves_every_stream_its_minimum(make_pair):
    pair = make_pair(limits=SessionLimits(window_pool=100_000))
    users = [pair.open() for _ in range(10)]
    sizes = [client.stream.receiving.window.size for client, _ in users]
    assert min(sizes) == MIN_WINDOW and sum(sizes) == 100_000 + 10 * MIN_WINDOW
    for client, exit in users:
        push(pair, exit, 200_000)
        assert len(client.received) == 200_000


def test_what_one_stream_gives_back_another_may_have(make_pair):
    pair = make_pair(limits=SessionLimits(window_pool=INITIAL_WINDOW - MIN_WINDOW))
    first, _ = pair.open()
    second, second_exit = pair.open()
    assert second.stream.receiving.window.size == MIN_WINDOW
    first.stream.reset(ResetCode.NORMAL)
    pair.settle()
    push(pair, second_exit, 500_000)
    assert second.stream.receiving.window.size > MIN_WINDOW


def test_readers_that_stall_hold_no_more_than_pool_and_minimums(pair):
    users = [pair.open() for _ in range(60)]
    for client, exit in users:
        client.reads = False
        while room := min(exit.stream.room, 65_000):
            exit.stream.send(bytes(room))
            pair.settle()
    held = sum(len(client.received) for client, _ in users)
    assert held <= POOL + 60 * MIN_WINDOW
    assert not pair.client_counters.dropped
