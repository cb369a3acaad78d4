"""What the endpoint sends gets lost, and how it finds out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from halftunnel_vpn.flow.tcp import NewReno, TcpState

Talk = Callable[..., Any]


def five_thousands(talk: Any) -> list[bytes]:
    """Hand over five segments of 1000 bytes and take them off the wire."""
    pieces = [bytes([letter]) * 1000 for letter in b"ABCDE"]
    for number, piece in enumerate(pieces):
        talk.gives(piece)
        talk.gets("PA", 1 + 1000 * number, 1, piece)
    return pieces


def test_the_timer_repeats_the_first_frame_and_then_everything(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake()
    pieces = five_thousands(talk)
    talk.wait(0.19)
    talk.gets_nothing()
    talk.wait(0.02)
    talk.gets("PA", 1, 1, b"".join(pieces))
    talk.gives(b"patience")  # nothing is sent into the silence
    talk.gets_nothing()
    talk.wait(0.38)
    talk.gets_nothing()
    talk.wait(0.04)
    talk.gets("PA", 1, 1, b"".join(pieces))
    talk.host("A", 1, 2001)
    talk.gets("PA", 5001, 1, b"patience")
    talk.host("A", 1, 5009)
    assert talk.stream.consumed_bytes == 5008
    assert talk.counters.counted["tcp-timeouts"] == 2


def test_the_timer_believes_no_earlier_sack(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake()
    pieces = five_thousands(talk)
    talk.host("A", 1, 1, sack=[(4001, 5001)])
    talk.gets_nothing()
    talk.wait(0.25)
    talk.gets("PA", 1, 1, b"".join(pieces))


def test_three_blocks_tell_a_loss(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake()
    pieces = five_thousands(talk)
    talk.host("A", 1, 1, sack=[(1001, 2001)])
    talk.host("A", 1, 1, sack=[(1001, 3001)])
    talk.gets_nothing()
    talk.host("A", 1, 1, sack=[(1001, 4001)])
    talk.gets("PA", 1, 1, pieces[0])
    talk.host("A", 1, 1, sack=[(1001, 5001)])
    talk.gets_nothing()
    talk.host("A", 1, 5001)
    assert talk.stream.consumed_bytes == 5000
    assert talk.counters.counted["tcp-fast-recoveries"] == 1
    assert talk.counters.counted["tcp-timeouts"] == 0


def test_several_holes_are_filled_at_once(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake()
    pieces = five_thousands(talk)
    for letter in b"FGH":
        talk.gives(bytes([letter]) * 1000)
        talk.frames.popleft()
    talk.host("A", 1, 1, sack=[(1001, 2001), (3001, 4001), (5001, 8001)])
    talk.gets("PA", 1, 1, pieces[0])
    talk.gets("PA", 2001, 1, pieces[2])
    talk.gets("PA", 4001, 1, pieces[4])
    talk.gets_nothing()
    talk.host("A", 1, 8001)
    assert talk.stream.consumed_bytes == 8000


def test_a_frame_that_arrives_late_needs_no_repetition(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake()
    five_thousands(talk)
    talk.host("A", 1, 1, sack=[(1001, 2001)])
    talk.host("A", 1, 2001)
    talk.host("A", 1, 5001)
    talk.gets_nothing()
    assert talk.counters.counted["tcp-retransmitted-frames"] == 0


def test_blocks_that_lie_are_ignored(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake()
    five_thousands(talk)
    talk.host("A", 1, 2001, sack=[(1, 1001), (9001, 20_001), (4001, 3001), (3001, 3001)])
    talk.gets_nothing()
    for end in (3001, 4001, 5001):
        talk.host("A", 1, 2001, sack=[(2001, end)])  # all of it, and yet it acknowledges nothing
    talk.gets_nothing()
    talk.wait(0.25)
    assert talk.frames.popleft().seq
    talk.host("A", 1, 5001)
    assert talk.stream.consumed_bytes == 5000


def test_without_sack_three_duplicates_tell_a_loss(conversation: Talk) -> None:
    talk = conversation(sack=False, congestion=NewReno())
    talk.handshake()
    pieces = five_thousands(talk)
    talk.host("A", 1, 1001)
    talk.host("A", 1, 1001)
    talk.host("A", 1, 1001)
    talk.gets_nothing()
    talk.host("A", 1, 1001, window=50_000)  # a window update is no duplicate
    talk.host("A", 1, 1001, window=50_000)
    talk.gets("PA", 1001, 1, pieces[1])
    talk.host("A", 1, 3001, window=50_000)  # a partial acknowledgement: the next one is lost, too
    talk.gets("PA", 3001, 1, pieces[3])
    talk.host("A", 1, 5001, window=50_000)
    for _ in range(5):
        talk.host("A", 1, 5001, window=50_000)
    talk.gets_nothing()
    assert talk.stream.consumed_bytes == 5000
    assert talk.counters.counted["tcp-timeouts"] == 0


def test_duplicates_caused_by_the_repair_start_no_other(conversation: Talk) -> None:
    talk = conversation(sack=False)
    talk.handshake()
    five_thousands(talk)
    talk.wait(0.25)
    talk.frames.clear()
    talk.host("A", 1, 5001)
    talk.gives(b"more")
    talk.gets("PA", 5001, 1, b"more")
    for _ in range(4):
        talk.host("A", 1, 5001)
    talk.gets_nothing()


def test_a_lost_fin_is_found_by_sack(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake()
    pieces = five_thousands(talk)
    talk.endpoint.finished(talk.now)
    talk.gets("FA", 5001, 1)
    talk.host("A", 1, 1, sack=[(1001, 5002)])
    talk.gets("PA", 1, 1, pieces[0])
    talk.host("A", 1, 5002)
    assert talk.endpoint.state is TcpState.FIN_WAIT_2


def test_congestion_control_opens_slowly(conversation: Talk) -> None:
    talk = conversation(scale=7, congestion=NewReno())
    talk.handshake(window=1 << 20)
    talk.gives(bytes(60_000))
    talk.gets("A", 1, 1, bytes(10_000))
    talk.gets_nothing()
    talk.host("A", 1, 5001, window=1 << 20)
    talk.gets("A", 10_001, 1, bytes(10_000))
    talk.gets_nothing()


def test_congestion_control_halves_on_loss(conversation: Talk) -> None:
    talk = conversation(scale=7, congestion=NewReno())
    talk.handshake(window=1 << 20)
    talk.gives(bytes(60_000))
    talk.gets("A", 1, 1, bytes(10_000))
    talk.host("A", 1, 1, window=1 << 20, sack=[(1001, 5001)])
    talk.gets("PA", 1, 1, bytes(1000))
    talk.gets_nothing()  # 5000 may be under way, and 6000 still are
    talk.host("A", 1, 1, window=1 << 20, sack=[(1001, 8001)])
    talk.gets("A", 10_001, 1, bytes(2000))
    talk.host("A", 1, 10_001, window=1 << 20)
    talk.gets("A", 12_001, 1, bytes(3000))


def test_congestion_control_begins_again_after_a_timeout(conversation: Talk) -> None:
    talk = conversation(scale=7, congestion=NewReno())
    talk.handshake(window=1 << 20)
    talk.gives(bytes(60_000))
    talk.gets("A", 1, 1, bytes(10_000))
    talk.wait(0.25)
    talk.gets("PA", 1, 1, bytes(1000))
    talk.host("A", 1, 1001, window=1 << 20)
    talk.gets("PA", 1001, 1, bytes(2000))
    talk.host("A", 1, 3001, window=1 << 20)
    talk.gets("PA", 3001, 1, bytes(4000))
    talk.host("A", 1, 10_001, window=1 << 20)
    talk.gets("A", 10_001, 1, bytes(5000))
    assert talk.counters.counted["tcp-fast-recoveries"] == 0


@pytest.mark.parametrize(("version", "full"), [(4, 65_495), (6, 65_475)])
def test_selective_acknowledgements_give_way_to_a_full_frame(
    conversation: Talk, version: int, full: int
) -> None:
    talk = conversation(version=version, scale=7)
    talk.handshake(window=1 << 20)
    talk.host("A", 1001, 1, b"late", window=1 << 20)
    talk.gets("A", 1, 1, sack=[(1001, 1005)])
    talk.gives(bytes(65_000))
    talk.gets("PA", 1, 1, bytes(65_000), sack=[(1001, 1005)])
    talk.gives(bytes(full))
    talk.gets("PA", 65_001, 1, bytes(full))
