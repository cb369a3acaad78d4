"""How many frames may come that are no whole record."""

from __future__ import annotations

import pytest
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from halftunnel_vpn.transport.control_frames import A_SECOND, BURST, BYTES_EACH, NOTHING, SideFrames

START = 1000.0
PING = b"\x89\x80mask"
FLOOD = "side-frame-flood"


def fragment(first: int, length: int) -> bytes:
    return bytes((first, 0xFE)) + length.to_bytes(2, "big") + bytes(4 + length)


@pytest.fixture
def side() -> SideFrames:
    return SideFrames(ServerProtocol(state=OPEN, max_size=65_536), START)


def pings_until_it_is_too_much(side: SideFrames, *, received: int = 0, now: float = START) -> int:
    for count in range(10 * BURST):
        if side.take(PING, received, now).reason == FLOOD:
            return count
    raise AssertionError("there is no bound")


def test_a_burst_and_then_no_more(side):
    own = BURST * len(PING) // BYTES_EACH  # the little that pings bring themselves
    assert BURST <= pings_until_it_is_too_much(side) <= BURST + own + 1


def test_a_ping_a_second_goes_on_for_ever(side):
    for second in range(3 * BURST):
        assert side.take(PING, 0, START + second) == NOTHING


def test_who_was_silent_for_long_has_no_more_than_the_burst(side):
    assert pings_until_it_is_too_much(side, now=START + 1e6) <= BURST + 10


@pytest.mark.parametrize("seconds", [0.0, 10.0])
def test_what_is_used_up_comes_back_with_time_and_with_bytes(side, seconds):
    for _ in range(BURST):
        assert side.take(PING, 0, START) == NOTHING
    received, now = 100 * BYTES_EACH, START + seconds
    expected = 100 + int(seconds * A_SECOND)
    assert expected <= pings_until_it_is_too_much(side, received=received, now=now) <= expected + 10


def test_long_fragments_pay_their_own_way(side):
    for number in range(4 * BURST):
        assert side.take(fragment(0x02, BYTES_EACH), number * 2 * BYTES_EACH, START) == NOTHING
        assert side.fragments is not None
        verdict = side.take(fragment(0x80, BYTES_EACH), number * 2 * BYTES_EACH, START)
        assert verdict.record is not None and len(verdict.record) == 2 * BYTES_EACH
        assert side.fragments is None
