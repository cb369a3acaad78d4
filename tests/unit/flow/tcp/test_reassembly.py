"""Out-of-order payloads against a plain array of bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halftunnel_vpn.flow.tcp import reassembly
from halftunnel_vpn.flow.tcp.reassembly import Reassembly

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


def test_the_number_of_gaps_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reassembly, "MAX_BLOCKS", 3)
    held = Reassembly()
    for start in (10, 20, 30):
        assert held.insert(start, memoryview(b"x"))
    assert not held.insert(40, memoryview(b"x"))
    assert held.insert(11, memoryview(b"y"))
    assert held.take(10) == [b"x", b"y"]
    assert held.insert(40, memoryview(b"x"))


def test_the_number_of_segments_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reassembly, "MAX_SEGMENTS", 3)
    held = Reassembly()
    for start in (10, 11, 12):
        assert held.insert(start, memoryview(b"x"))
    assert not held.insert(13, memoryview(b"x"))
    held.clear()
    assert not held
    assert held.insert(13, memoryview(b"x"))
    held.take(13)
    for start in (10, 11, 12):
        assert held.insert(start, memoryview(b"x"))
