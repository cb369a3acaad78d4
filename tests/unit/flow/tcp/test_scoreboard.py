"""The scoreboard against a set of numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from halftunnel_vpn.flow.tcp import scoreboard
from halftunnel_vpn.flow.tcp.scoreboard import Scoreboard

LIMIT = 60
RANGES = st.tuples(st.integers(0, LIMIT), st.integers(0, LIMIT)).filter(lambda pair: pair[0] < pair[1])


@given(st.lists(st.one_of(RANGES, st.integers(0, LIMIT)), max_size=30), RANGES)
def test_it_is_a_set_of_numbers(steps: list[tuple[int, int] | int], question: tuple[int, int]) -> None:
    board, numbers = Scoreboard(), set[int]()
    for step in steps:
        if isinstance(step, int):
            board.advance(step)
            numbers = {number for number in numbers if number >= step}
        else:
            news = not set(range(*step)) <= numbers
            assert board.add(*step) == news
            numbers |= set(range(*step))
    assert {number for start, end in board.ranges for number in range(start, end)} == numbers
    assert board.total == len(numbers)
    for (_, end), (start, _) in zip(board.ranges, board.ranges[1:], strict=False):
        assert end < start

    asked = set(range(*question))
    assert board.covered(*question) == len(asked & numbers)
    hole = board.first_hole(*question)
    missing = sorted(asked - numbers)
    if hole is None:
        assert not missing
    else:
        assert hole[0] == missing[0]
        assert set(range(*hole)) <= set(missing)
        assert hole[1] == question[1] or hole[1] in numbers


def test_three_ranges_above_a_hole_make_it_a_loss() -> None:
    board = Scoreboard()
    board.add(100, 110)
    board.add(200, 210)
    assert board.lost_below(1000) == 0
    board.add(300, 310)
    assert board.lost_below(1000) == 100
    board.add(400, 410)
    assert board.lost_below(1000) == 200


def test_more_than_two_segments_above_a_hole_make_it_a_loss() -> None:
    board = Scoreboard()
    board.add(5000, 7000)
    assert board.lost_below(1000) == 0
    board.add(5000, 7001)
    assert board.lost_below(1000) == 5000


def test_its_size_is_bounded() -> None:
    board = Scoreboard()
    for number in range(scoreboard.MAX_RANGES):
        assert board.add(10 * number, 10 * number + 1)
    assert not board.add(1_000_000, 1_000_001)
    assert board.add(1, 2)
    board.clear()
    assert (board.ranges, board.total) == ([], 0)
