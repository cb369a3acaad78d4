"""The bytes on their way to the host."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from halftunnel_vpn.flow.tcp.send_queue import COALESCE_BELOW, MAX_FRAME_PARTS, SendQueue

TEXT = random.Random(1).randbytes(300_000)


@given(
    pieces=st.lists(st.sampled_from((1, 10, 1000, 5000, 65_486, 70_000)), min_size=1, max_size=8),
    sizes=st.lists(st.integers(1, 80_000), min_size=1, max_size=30),
    seed=st.integers(0, 1000),
)
def test_bytes_leave_in_order_and_can_be_had_again(pieces: list[int], sizes: list[int], seed: int) -> None:
    dice = random.Random(seed)
    queue = SendQueue()
    queue.frame_limit = 65_495
    total = 0
    for piece in pieces:
        if total + piece <= len(TEXT):
            queue.append(memoryview(TEXT)[total : total + piece])
            total += piece
    una = nxt = 0
    for size in sizes:
        assert queue.waiting == total - nxt
        if queue.waiting and dice.random() < 0.6:
            parts, count = queue.launch(min(size, queue.waiting))
            assert 0 < count <= min(size, 65_495)
            assert b"".join(parts) == TEXT[nxt : nxt + count]
            nxt += count
        if nxt > una:
            start = dice.randrange(una, nxt)
            parts, count = queue.again(start - una, min(size, nxt - start))
            assert count == min(size, nxt - start, 65_495)
            assert b"".join(parts) == TEXT[start : start + count]
            if dice.random() < 0.5:
                count = min(size, nxt - una)
                queue.release(count)
                una += count


def test_a_piece_that_fits_a_frame_is_not_torn_for_the_rest_of_another() -> None:
    queue = SendQueue()
    queue.frame_limit = 65_495
    first, second = memoryview(TEXT)[:40_000], memoryview(TEXT)[40_000:80_000]
    queue.append(first)
    queue.append(second)
    assert queue.launch(80_000) == ([first], 40_000)
    assert queue.launch(40_000) == ([second], 40_000)


def test_no_piece_is_copied_unless_it_is_small_and_waits_behind_another_small_one() -> None:
    queue = SendQueue()
    queue.frame_limit = 65_495
    large = memoryview(TEXT)[:5000]
    for _ in range(3):
        queue.append(memoryview(b"crumb"))
    queue.append(large)
    queue.append(memoryview(b"crumb"))
    queue.append(memoryview(b""))
    parts, count = queue.launch(queue.waiting)
    assert count == 5020
    assert parts == [b"crumb" * 3, large, b"crumb"]
    assert parts[1].obj is TEXT


def test_a_frame_has_a_bounded_number_of_parts() -> None:
    queue = SendQueue()
    queue.frame_limit = 65_495
    for number in range(2 * MAX_FRAME_PARTS + 2):
        queue.append(memoryview(TEXT)[:COALESCE_BELOW] if number % 2 else memoryview(b"."))
    queue.frame_limit = 1 << 30
    parts, count = queue.launch(queue.waiting)
    assert len(parts) == MAX_FRAME_PARTS
    queue.launch(queue.waiting)
    parts, again = queue.again(0, 1 << 29)
    assert (len(parts), again) == (MAX_FRAME_PARTS, count)


def test_clearing_forgets_everything() -> None:
    queue = SendQueue()
    queue.append(memoryview(b"abc"))
    queue.clear()
    assert queue.waiting == 0
    assert queue.again(0, 3) == ([], 0)
