"""The receive side alone: bounds that no well-meaning host reaches."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.flow.interfaces import Buffer
from halftunnel_vpn.flow.tcp.reassembly import MAX_BLOCKS
from halftunnel_vpn.flow.tcp.receiving import Receiver
from halftunnel_vpn.protocol.stream_messages import ResetCode

NOW = 100.0
TEXT = bytes(range(200))


class Stream:
    def __init__(self, room: int) -> None:
        self.room = room
        self.sent = b""

    def send(self, data: Buffer, now: float) -> None:
        self.sent += data
        self.room -= len(data)
        assert self.room >= 0

    def finish(self) -> None: ...
    def reset(self, code: ResetCode) -> None: ...
    def consumed(self, count: int, now: float) -> None: ...


def receiver(room: int = 1000, shift: int = 0, max_window: int = 1 << 24) -> tuple[Receiver, Stream]:
    stream = Stream(room)
    made = Receiver(stream, Counters())
    made.start(1, 100, shift, max_window, sack=True)
    made.open_window()
    return made, stream


def view(start: int, end: int) -> memoryview:
    """The bytes with these sequence numbers; the first has number 1."""
    return memoryview(TEXT)[start - 1 : end - 1]


@given(
    st.lists(st.tuples(st.integers(1, 200), st.integers(0, 60)), max_size=30),
    st.integers(1, 200),
)
def test_any_segments_in_any_order_give_the_text_once(pieces: list[tuple[int, int]], room: int) -> None:
    made, stream = receiver(room)
    known = set[int]()
    for start, length in pieces:
        end = min(start + length, 201)
        if made.accepts(start, end - start):
            made.arrived(start, view(start, end), False, NOW)
            known |= set(range(start, min(end, room + 1)))
    end = 1
    while end in known:
        end += 1
    assert stream.sent == TEXT[: end - 1]
    assert made.next == end
    assert made.has_gap == any(number > end for number in known)


def test_segments_that_find_no_place_are_dropped_and_later_taken() -> None:
    made, stream = receiver(room=20 * MAX_BLOCKS)
    beyond = 11 + 10 * MAX_BLOCKS
    for start in range(11, beyond, 10):  # a gap before each
        assert made.arrived(start, view(1, 2), False, NOW)
    assert made.arrived(beyond, view(2, 3), False, NOW)
    assert made._counters.dropped["tcp-reassembly-full"] == 1
    assert made.arrived(1, view(1, 11), False, NOW)
    assert stream.sent == TEXT[:10] + TEXT[:1]
    assert made.arrived(12, memoryview(bytes(beyond - 12)), False, NOW)
    assert not made.has_gap
    assert made.next == beyond
    assert not made.arrived(beyond, view(2, 3), False, NOW)
    assert stream.sent[-1:] == TEXT[1:2]
    assert made._counters.dropped["tcp-reassembly-full"] == 1


def test_a_fin_is_believed_once() -> None:
    made, stream = receiver()
    made.arrived(21, view(21, 31), True, NOW)
    made.arrived(41, view(41, 51), True, NOW)  # behind the first FIN
    made.arrived(25, view(25, 45), False, NOW)
    assert made._counters.dropped["tcp-after-fin"] == 2
    assert not made.finished
    made.arrived(1, view(1, 21), False, NOW)
    assert made.finished
    assert stream.sent == TEXT[:30]
    assert made.next == 32


def test_a_window_that_cannot_be_written_down_is_rounded_down() -> None:
    made, _ = receiver(room=1000, shift=8)
    assert made.open_window() == 3
    made.arrived(1, view(1, 101), False, NOW)
    assert made.open_window() == 3
    assert made.accepts(1000, 1)
    assert not made.accepts(1001, 1)


def test_the_window_field_has_a_largest_value() -> None:
    made, _ = receiver(room=1 << 25, shift=8)
    assert made.open_window() == 0xFFFF
    assert made.edge - made.next == 0xFFFF << 8
    assert made.unscaled_window == 0xFFFF
    unscaled, _ = receiver(room=1 << 25)
    assert unscaled.open_window() == 0xFFFF


@pytest.mark.parametrize(
    ("sequence", "length", "expected"),
    [
        (101, 0, True),
        (100, 0, False),
        (1000, 0, True),
        (1001, 0, False),
        (51, 50, False),
        (51, 51, True),
        (1000, 500, True),
        (1001, 1, False),
        (101, 5000, True),
    ],
)
def test_what_touches_the_window_is_acceptable(sequence: int, length: int, expected: bool) -> None:
    made, _ = receiver()
    made.arrived(1, view(1, 101), False, NOW)
    assert made.accepts(sequence, length) is expected
