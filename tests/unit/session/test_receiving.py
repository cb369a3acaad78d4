"""The receiving half of a stream: order out of disorder, and the credit it gives."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halftunnel_vpn.errors import FlowControlError
from halftunnel_vpn.protocol.records import MAX_TRAIN
from halftunnel_vpn.protocol.wire import PacketType
from halftunnel_vpn.session.receive_side import (
    FAST_GROWTH,
    GROWTH_HORIZON,
    INITIAL_WINDOW,
    MIN_WINDOW,
    ReceiveSide,
    ReceiveWindow,
    WindowPool,
)
from halftunnel_vpn.session.send_side import RING

DATA, FIN = PacketType.DATA, PacketType.FIN
MIB = 1024 * 1024


@pytest.fixture
def pool():
    return WindowPool(64 * MIB)


@pytest.fixture
def side(pool):
    return ReceiveSide(pool, 1)


def take(side, number, payload=b"", type_=DATA):
    """Accept a packet; the payloads that its arrival lets through, in order."""
    if not side.accept(type_, number & 0xFFFF_FFFF, memoryview(payload)):
        return []
    delivered = [payload]
    while (arrival := side.next_waiting()) is not None:
        delivered.append(bytes(arrival[1]))
    return delivered


# --- order ----------------------------------------------------------------------------------------


def test_packets_in_order_pass_at_once(side):
    assert [take(side, number, b"%d" % number) for number in range(3)] == [[b"0"], [b"1"], [b"2"]]
    assert (side.expected, side.received, side.packets_unacknowledged) == (3, 3, 3)
    assert not side.waiting


def test_early_packets_wait_for_the_missing_one(side):
    assert take(side, 2, b"c") == []
    assert take(side, 1, b"b") == []
    assert side.waiting
    assert take(side, 0, b"a") == [b"a", b"b", b"c"]
    assert not side.waiting


def test_a_gap_is_closed_only_as_far_as_it_goes(side):
    take(side, 1, b"b")
    take(side, 3, b"d")
    assert take(side, 0, b"a") == [b"a", b"b"]
    assert side.waiting and side.expected == 2
    assert take(side, 2, b"c") == [b"c", b"d"]


def test_repetitions_change_nothing(side):
    take(side, 0, b"a")
    take(side, 2, b"c")
    before = side.expected, side.received, side.window.granted
    assert take(side, 0, b"a") == []
    assert take(side, 2, b"other bytes, and more of them") == []
    assert (side.expected, side.received, side.window.granted) == before
    assert take(side, 1, b"b") == [b"b", b"c"]


def test_a_packet_beyond_the_ring_is_a_violation(side):
    assert take(side, RING - 1, b"x") == []
    with pytest.raises(FlowControlError) as raised:
        take(side, RING, b"x")
    assert raised.value.reason == "beyond-ring"


def test_the_ring_turns(side):
    for number in range(3 * RING):
        assert take(side, number) == [b""]
    assert take(side, 3 * RING + RING - 1, b"far") == []


@pytest.mark.parametrize("start", [(1 << 32) - 2, (1 << 32) - 1, 1 << 32, (1 << 33) - RING])
def test_numbers_wrap(side, start):
    side.expected = start
    assert take(side, start + 3, b"d") == []
    assert take(side, start + 1, b"b") == []
    assert take(side, start - 1, b"old") == []
    assert take(side, start, b"a") == [b"a", b"b"]
    assert take(side, start + 2, b"c") == [b"c", b"d"]
    assert side.expected == start + 4
    with pytest.raises(FlowControlError):
        take(side, start + 4 + RING, b"x")


@settings(max_examples=60, deadline=None)
@given(
    order=st.permutations(range(30)),
    again=st.lists(st.integers(0, 29), max_size=20),
    start=st.sampled_from([0, (1 << 32) - 15]),
)
def test_any_order_and_any_repetition_gives_each_packet_once(order, again, start):
    side = ReceiveSide(WindowPool(MIB), 1)
    side.expected = start
    delivered = []
    for number in [*order[:15], *again, *order[15:], *again]:
        delivered += take(side, start + number, b"%d" % number)
    assert delivered == [b"%d" % number for number in range(30)]
    assert not side.waiting


# --- credit ---------------------------------------------------------------------------------------


def test_the_whole_window_may_be_used_and_not_a_byte_more(side):
    assert side.window.granted == INITIAL_WINDOW
    take(side, 0, bytes(INITIAL_WINDOW))
    with pytest.raises(FlowControlError) as raised:
        take(side, 1, b"x")
    assert raised.value.reason == "beyond-credit"


def test_what_waits_in_the_ring_counts_too(side):
    take(side, 5, bytes(INITIAL_WINDOW - 10))
    with pytest.raises(FlowControlError):
        take(side, 6, bytes(11))
    assert take(side, 7, bytes(10)) == []
    with pytest.raises(FlowControlError):
        take(side, 0, b"x")


@pytest.mark.parametrize("size", [2048, 4000, 20_000, 40_000])
def test_what_waits_keeps_little_more_memory_than_its_own(side, size):
    """A peer chooses how little of a train is for this stream, and credit counts only that."""
    count = INITIAL_WINDOW // size
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(1, count + 1):
            side.accept(DATA, number, memoryview(bytes(MAX_TRAIN))[:size])
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert side.waiting == count
    assert held < 2 * count * size + RING * 8 + 50_000


def test_a_fin_needs_no_credit(side):
    take(side, 0, bytes(INITIAL_WINDOW))
    assert side.accept(FIN, 1, memoryview(b""))
    take(side, 3, b"", FIN)
    assert side.waiting


def test_a_fin_that_came_early_waits_its_turn(side):
    assert not side.accept(FIN, 1, memoryview(b""))
    assert side.accept(DATA, 0, memoryview(b"x"))
    assert side.next_waiting() == (FIN, b"")
    assert side.received == 1


def test_credit_is_told_in_steps_and_only_grows(pool):
    window = ReceiveWindow(pool)
    told = []
    for _ in range(100):
        before = window.granted
        if window.consume(5000, 0.1, 1000.0):
            told.append(window.granted)
            assert window.granted > before
        else:
            assert window.granted == before
        assert window.granted <= window.consumed + window.size
    assert told == sorted(set(told)) and 3 < len(told) < 40


@pytest.mark.parametrize(
    ("round_trip", "pause", "grows"), [(0.1, 0.15, True), (0.1, 0.25, False), (0.0, GROWTH_HORIZON / 2, True)]
)
def test_a_small_window_that_is_used_up_within_two_round_trips_grows_fast(pool, round_trip, pause, grows):
    window = ReceiveWindow(pool)
    window.consume(window.size // 2, round_trip, 50.0)
    before = window.size
    window.consume(before // 2, round_trip, 50.0 + pause)
    assert window.size == (FAST_GROWTH * before if grows else before)


def test_a_large_window_doubles(pool):
    window = ReceiveWindow(pool)
    sizes = [window.size]
    for step in range(6):
        window.consume(window.size // 2, 1.0, 50.0 + step / 1000)
        sizes.append(window.size)
    assert sizes == [INITIAL_WINDOW, *(INITIAL_WINDOW * factor for factor in (1, 4, 16, 32, 64, 128))]


def test_a_window_stops_at_its_own_bound(pool):
    pool.max_window = 300_000
    window = ReceiveWindow(pool)
    for step in range(100):
        window.consume(window.size // 2, 1.0, 50.0 + step / 1000)
    assert window.size == 300_000


@pytest.mark.parametrize("bound", [64 * 1024, INITIAL_WINDOW, 200 * 1024])
def test_a_window_is_never_larger_than_its_bound(bound):
    window = ReceiveWindow(WindowPool(1 << 30, bound))
    assert window.size == min(bound, INITIAL_WINDOW)
    for turn in range(20):
        assert window.granted - window.consumed <= bound
        window.consume(window.granted - window.consumed, 1.0, 100.0 + turn * 0.01)
    assert window.size == bound


def test_streams_that_were_fast_once_leave_those_that_come_something_to_grow_by(pool):
    """Credit cannot be taken back: a connection that idles keeps what it has grown to."""
    sizes = []
    for _ in range(6):
        window = ReceiveWindow(pool)
        for step in range(100):
            window.consume(window.size // 2, 1.0, 50.0 + step / 1000)
        sizes.append(window.size // MIB)
    assert sizes[:2] == [16, 16]
    assert sizes[-1] >= 1


def test_an_empty_pool_leaves_the_minimum():
    pool = WindowPool(INITIAL_WINDOW - MIN_WINDOW + 100)
    first, second, third = ReceiveWindow(pool), ReceiveWindow(pool), ReceiveWindow(pool)
    assert (first.size, second.size, third.size) == (INITIAL_WINDOW, MIN_WINDOW + 100, MIN_WINDOW)
    for step in range(20):
        third.consume(third.size // 2, 1.0, 50.0 + step / 1000)
    assert third.size == MIN_WINDOW and pool.available == 0


def test_a_window_gives_back_all_it_took_and_once(pool):
    whole = pool.available
    windows = [ReceiveWindow(pool) for _ in range(5)]
    for window in windows:
        for step in range(20):
            window.consume(window.size // 2, 1.0, 50.0 + step / 1000)
    assert pool.available < whole
    for window in windows:
        window.release()
        window.release()
    assert pool.available == whole
