"""The memory that streams of several sessions share."""

from __future__ import annotations

import pytest

from halftunnel_vpn.errors import FlowControlError
from halftunnel_vpn.session.memory_budget import (
    KEEP_FOR_FIRST,
    KEEP_TO_GROW,
    KEEP_TO_SEND,
    MIN_SEND,
    Memory,
)
from halftunnel_vpn.session.receive_side import INITIAL_WINDOW, MIN_WINDOW, ReceiveWindow, WindowPool
from halftunnel_vpn.session.send_side import SendSide

KIB = 1024
MIB = 1024 * KIB


def test_what_is_taken_counts_here_and_above():
    everybody = Memory(100)
    first, second = Memory(80, everybody), Memory(80, everybody)
    first.take(60)
    second.take(30)
    assert (first.used, second.used, everybody.used) == (60, 30, 90)
    first.give_back(60)
    assert (first.used, everybody.used) == (0, 30)


def test_what_is_free_is_free_here_and_above():
    everybody = Memory(100)
    first, second = Memory(80, everybody), Memory(80, everybody)
    assert first.spare(4) == 60 and everybody.spare(4) == 75
    second.take(50)
    assert first.spare(4) == 25, "what the others have counts"
    second.take(40)
    assert first.spare(4) == 0 and not first.is_full and second.is_full
    first.take(10)
    assert first.is_full, "the bound of all is one of each"


def test_the_more_urgent_a_need_the_longer_it_is_met():
    assert KEEP_TO_GROW < KEEP_FOR_FIRST < KEEP_TO_SEND
    memory = Memory(MIB)
    memory.take(MIB // 2)
    assert not memory.spare(KEEP_TO_GROW) and memory.spare(KEEP_FOR_FIRST) and memory.spare(KEEP_TO_SEND)


@pytest.fixture
def window():
    def make(memory):
        return ReceiveWindow(WindowPool(64 * MIB, memory=memory))

    return make


def test_a_window_begins_with_the_least_when_little_is_left(window):
    memory = Memory(MIB)
    assert window(memory).size == INITIAL_WINDOW
    memory.take(MIB)
    assert window(memory).size == MIN_WINDOW


def test_a_window_grows_while_half_is_free(window):
    memory = Memory(2 * MIB)
    one = window(memory)
    now = 0.0
    for _ in range(100):
        now += 0.001
        one.consume(one.size // 2, 0.01, now)
    assert MIB // 2 < one.size <= MIB + MIN_WINDOW
    assert memory.used == one.size - MIN_WINDOW


def test_a_window_stays_counted_while_somebody_holds_what_came_through_it(window):
    memory = Memory(MIB)
    one = window(memory)
    one.release(50_000)
    assert memory.used == 50_000
    assert not one.consume(20_000, 0.01, 1.0), "no credit for what is over"
    assert memory.used == 30_000
    one.consume(30_000, 0.01, 1.0)
    one.consume(10_000, 0.01, 1.0)
    assert memory.used == 0


def test_what_a_sender_keeps_is_counted_until_it_is_acknowledged(leg, packets):
    from halftunnel_vpn.session.train import Train

    memory = Memory(MIB)
    side = SendSide(bytes(16), 1, 1 << 40, memory)
    side.queue(bytes(60_000))
    assert memory.used == 60_000
    train = Train()
    side.fill(train, leg, 0, 1 << 20, 0.0)
    assert memory.used == 60_000
    side.acknowledge(side.next_sequence)
    assert memory.used == 0
    side.queue(bytes(1000))
    side.drop_everything()
    side.drop_everything()
    assert memory.used == 0


def test_a_sender_goes_on_with_little_when_memory_is_full():
    memory = Memory(MIB)
    side = SendSide(bytes(16), 1, 1 << 40, memory)
    memory.take(MIB)
    assert side.room == MIN_SEND
    side.queue(bytes(MIN_SEND))
    assert side.room == 0


def test_an_acknowledgement_that_is_forged_frees_nothing():
    memory = Memory(MIB)
    side = SendSide(bytes(16), 1, 1 << 40, memory)
    side.queue(bytes(1000))
    with pytest.raises(FlowControlError):
        side.acknowledge(5)
    assert memory.used == 1000
