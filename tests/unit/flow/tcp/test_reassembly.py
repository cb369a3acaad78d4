"""Out-of-order payloads against a plain array of bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from halftunnel_vpn.flow.tcp.reassembly import MAX_BLOCKS, MAX_SEGMENTS, Reassembly

TEXT = bytes(range(1, 121))


@given(
    st.lists(st.tuples(st.integers(1, 119), st.integers(1, 30)), max_size=40),
    st.lists(st.integers(0, 120), max_size=3).map(sorted),
)
def test_what_goes_in_comes_out(pieces: list[tuple[int, int]], asked: list[int]) -> None:
    held, known = Reassembly(), set[int]()
    for start, length in pieces:
        assert held.insert(start, memoryview(TEXT)[start : start + length])
        known |= set(range(start, min(start + length, 120)))
    report = held.report()
    assert len(report) == len(set(report)) <= 4
    for start, end in report:
        assert set(range(start, end)) <= known
        assert not {start - 1, end} & known
    if pieces:
        last = pieces[-1][0]
        assert report[0][0] <= last < report[0][1]
    for at in asked:
        taken = b"".join(held.take(at))
        end = at
        while end in known:
            end += 1
        assert taken == TEXT[at:end]
        known = {number for number in known if number > end}
        assert bool(held) == bool(known)


def test_the_number_of_gaps_is_bounded() -> None:
    held = Reassembly()
    end = 10 * MAX_BLOCKS
    for start in range(0, end, 10):
        assert held.insert(start, memoryview(b"x"))
    assert not held.insert(end, memoryview(b"x"))
    assert held.insert(1, memoryview(b"y"))
    assert held.take(0) == [b"x", b"y"]
    assert held.insert(end, memoryview(b"x"))


def test_the_number_of_segments_is_bounded() -> None:
    held = Reassembly()
    for start in range(MAX_SEGMENTS):
        assert held.insert(start, memoryview(b"x"))
    assert not held.insert(MAX_SEGMENTS, memoryview(b"x"))
    held.clear()
    assert not held
    assert held.insert(MAX_SEGMENTS, memoryview(b"x"))
    held.take(MAX_SEGMENTS)
    for start in range(MAX_SEGMENTS):
        assert held.insert(start, memoryview(b"x"))
