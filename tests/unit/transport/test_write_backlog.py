"""What waits for a destination stays in order, and costs about what it holds."""

from __future__ import annotations

import random
import sys

import pytest

from halftunnel_vpn.transport.relay.write_backlog import JOINED_BELOW, MAX_JOINED, keep, let_go


def test_in_and_out_in_any_pieces():
    dice = random.Random(5)
    sizes = [1, 2, 700, JOINED_BELOW - 1, JOINED_BELOW, MAX_JOINED]
    backlog, expected = [], bytearray()
    for _ in range(3000):
        if dice.random() < 0.6:
            data = dice.randbytes(dice.choice(sizes))
            keep(backlog, memoryview(data))
            expected += data
        else:
            count = dice.randint(0, min(len(expected), 2 * MAX_JOINED))
            let_go(backlog, count)
            del expected[:count]
        assert sum(map(len, backlog)) == len(expected)
    assert b"".join(backlog) == expected


@pytest.mark.parametrize("length", [1, 100, 2048, JOINED_BELOW - 1, JOINED_BELOW, 65_000])
def test_no_piece_keeps_much_more_than_it_holds(length):
    backlog, total = [], 200_000
    for _ in range(total // length):
        record = memoryview(bytes(65_536))
        keep(backlog, record[:length])
    cost = 0
    for piece in backlog:
        cost += sys.getsizeof(piece)
        if type(piece) is memoryview:
            cost += sys.getsizeof(piece.obj)
    assert cost < 2.5 * total


def test_what_is_kept_may_be_changed_by_its_owner():
    backlog, record = [], bytearray(b"abc")
    keep(backlog, memoryview(record))
    record[:] = b"xyz"
    assert backlog == [b"abc"]
