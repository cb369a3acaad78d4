"""Flow control in both directions: what may be sent, what is acknowledged when, what a closed window does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from halftunnel_vpn.flow.tcp import TcpEndpointConfig, TcpState
from halftunnel_vpn.protocol.stream_messages import ResetCode

Talk = Callable[..., Any]
UNSCALED = TcpEndpointConfig(window_scale=0)


# --- from the host to the stream -----------------------------------------------------------------


def test_one_acknowledgement_serves_a_batch(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake()
    for at in range(1, 50_001, 10_000):
        talk.host("A", at, 1, bytes(10_000), flush=False)
    talk.gets_nothing()
    talk.endpoint.flush(talk.now)
    talk.gets("A", 1, 50_001)
    talk.endpoint.flush(talk.now)
    talk.gets_nothing()


def test_a_large_batch_is_acknowledged_in_between(conversation: Talk) -> None:
    talk = conversation(room=1 << 24)
    talk.handshake()
    for at in range(1, 512 * 1024, 60_000):
        talk.host("A", at, 1, bytes(60_000), flush=False)
    talk.gets("A", 1, 300_001)
    talk.gets_nothing()


def test_an_answer_carries_the_acknowledgement(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake()
    talk.stream.on_send = lambda: talk.gives(b"pong")
    talk.host("PA", 1, 1, b"ping")
    talk.gets("PA", 1, 5, b"pong")
    talk.gets_nothing()


def test_the_window_is_the_room_of_the_stream(conversation: Talk) -> None:
    talk = conversation(config=UNSCALED, room=5000)
    talk.handshake()
    talk.host("A", 1, 1, bytes(1000))
    talk.gets("A", 1, 1001, window=4000)
    talk.stream.room = 900  # not the host's fault: the promise of 5001 stands
    talk.host("A", 1001, 1, bytes(500))
    talk.gets("A", 1, 1501, window=3500)


def test_the_window_never_exceeds_the_configured_maximum(conversation: Talk) -> None:
    talk = conversation(config=TcpEndpointConfig(window_scale=0, max_window=3000), room=50_000)
    talk.handshake()
    talk.host("A", 1, 1, bytes(1000))
    talk.gets("A", 1, 1001, window=3000)


def test_data_beyond_the_window_is_dropped_but_acknowledged(conversation: Talk) -> None:
    talk = conversation(config=UNSCALED, room=5000)
    talk.handshake()
    talk.host("FA", 1, 1, bytes(6000))
    talk.gets("A", 1, 5001, window=0)
    assert talk.stream.sent == bytes(5000)
    talk.host("A", 5001, 1, b"?")  # the host probes the closed window
    talk.gets("A", 1, 5001, window=0)
    talk.host("A", 5000, 1)  # as Linux does it
    talk.gets("A", 1, 5001, window=0)
    talk.host("A", 9000, 1, b"far away")
    talk.gets("A", 1, 5001, window=0)
    assert talk.stream.sent == bytes(5000)
    assert talk.counters.dropped["tcp-beyond-window"] == 2
    assert talk.counters.dropped["tcp-out-of-window"] == 1
    assert talk.counters.counted["tcp-probes-answered"] == 1
    assert not talk.stream.is_finished


def test_a_closed_window_takes_acknowledgements_and_the_fin(conversation: Talk) -> None:
    talk = conversation(config=UNSCALED, room=1000)
    talk.handshake()
    talk.host("A", 1, 1, bytes(1000))
    talk.gets("A", 1, 1001, window=0)
    talk.gives(b"answer")
    talk.gets("PA", 1, 1001, b"answer", window=0)
    talk.host("A", 1001, 7, b"?")
    talk.gets("A", 7, 1001, window=0)
    assert talk.stream.consumed_bytes == 6
    talk.host("FA", 1001, 7)
    talk.gets("A", 7, 1002, window=0)
    assert talk.endpoint.state is TcpState.CLOSE_WAIT


def test_a_window_that_opens_is_announced(conversation: Talk) -> None:
    talk = conversation(config=UNSCALED, room=10_000)
    talk.handshake()
    talk.host("A", 1, 1, bytes(10_000))
    talk.gets("A", 1, 10_001, window=0)
    talk.stream.room = 900  # less than a segment: not worth a word
    talk.endpoint.room_grew(talk.now)
    talk.gets_nothing()
    talk.stream.room = 2500
    talk.endpoint.room_grew(talk.now)
    talk.gets("A", 1, 10_001, window=2500)
    talk.stream.room = 4000  # the host is not waiting
    talk.endpoint.room_grew(talk.now)
    talk.gets_nothing()


def test_a_window_that_grows_by_little_is_not_moved(conversation: Talk) -> None:
    talk = conversation(config=UNSCALED, room=10_000)
    talk.handshake()
    talk.host("A", 1, 1, bytes(2000))
    talk.gets("A", 1, 2001, window=8000)
    talk.stream.room += 500
    talk.host("A", 2001, 1, bytes(100))
    talk.gets("A", 1, 2101, window=7900)
    talk.stream.room += 500
    talk.host("A", 2101, 1, bytes(100))
    talk.gets("A", 1, 2201, window=8800)


def test_segments_out_of_order_are_reported_and_kept(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake()
    talk.host("A", 1001, 1, b"B" * 1000, flush=False)
    talk.gets("A", 1, 1, sack=[(1001, 2001)])
    talk.host("A", 4001, 1, b"E" * 1000, flush=False)
    talk.gets("A", 1, 1, sack=[(4001, 5001), (1001, 2001)])
    talk.host("A", 2001, 1, b"C" * 1000, flush=False)
    talk.gets("A", 1, 1, sack=[(1001, 3001), (4001, 5001)])
    talk.host("A", 1, 1, b"A" * 1000, flush=False)
    talk.gets("A", 1, 3001, sack=[(4001, 5001)])
    talk.gives(b"meanwhile")
    talk.gets("PA", 1, 3001, b"meanwhile", sack=[(4001, 5001)])
    talk.host("A", 3001, 10, b"D" * 1000, flush=False)
    talk.gets("A", 10, 5001)
    assert talk.stream.sent == b"".join(bytes([letter]) * 1000 for letter in b"ABCDE")


def test_no_blocks_for_a_host_without_sack(conversation: Talk) -> None:
    talk = conversation(sack=False)
    talk.handshake()
    talk.host("A", 1001, 1, b"B" * 1000)
    talk.gets("A", 1, 1)
    talk.host("A", 1, 1, b"A" * 1500)  # and half of what is there already
    talk.gets("A", 1, 2001)
    assert talk.stream.sent == b"A" * 1500 + b"B" * 500


def test_a_repeated_segment_is_acknowledged_again(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake()
    talk.host("A", 1, 1, b"once")
    talk.gets("A", 1, 5)
    talk.host("A", 1, 1, b"once")
    talk.gets("A", 1, 5)
    talk.host("A", 3, 1, b"ce, and on")
    talk.gets("A", 1, 13)
    assert talk.stream.sent == b"once, and on"


def test_urgent_data_is_ordinary_data(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake()
    talk.host("UA", 1, 1, b"now!")
    talk.gets("A", 1, 5)
    assert talk.stream.sent == b"now!"


# --- from the stream to the host -----------------------------------------------------------------


def test_data_goes_out_in_frames_of_up_to_64_kb(conversation: Talk) -> None:
    talk = conversation(scale=7)
    talk.handshake(window=1 << 20)
    talk.gives(bytes(100_000))
    talk.gets("A", 1, 1, bytes(65_495))
    talk.gets("PA", 65_496, 1, bytes(34_505))
    talk.host("A", 1, 100_001, window=1 << 20)
    assert talk.stream.consumed_bytes == 100_000


def test_the_window_of_the_host_holds_data_back(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake(window=10_000)
    talk.gives(bytes(9500))
    talk.gives(bytes(9500))
    talk.gets("PA", 1, 1, bytes(9500))
    talk.gets_nothing()  # 500 bytes would be a silly window
    talk.host("A", 1, 5001, window=10_000)
    talk.gets("A", 9501, 1, bytes(5000))  # whole segments
    talk.host("A", 1, 14_501, window=10_000)
    talk.gets("PA", 14_501, 1, bytes(4500))
    assert talk.stream.consumed_bytes == 14_500


def test_small_pieces_leave_together_when_the_window_opens(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake(window=0)
    for letter in b"abcdef":
        talk.gives(bytes([letter]))
    talk.gets_nothing()
    talk.host("A", 1, 1, window=1000)
    talk.gets("PA", 1, 1, b"abcdef")


def test_a_closed_window_is_probed_with_growing_pauses(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake(window=0)
    talk.gives(b"hello")
    pauses = []
    before = talk.now
    for _ in range(12):
        talk.wait(100 if talk.frames else 0)
        while not talk.frames:
            talk.wait(0.1)
        talk.gets("A", 1, 1, b"h")
        pauses.append(round(talk.now - before, 1))
        before = talk.now
        talk.host("A", 1, 1, window=0)
    assert pauses[:4] == [0.3, 0.4, 0.8, 1.6]  # in steps of the test's 0.1 s
    assert max(pauses) < 61
    assert talk.closed == 0
    talk.host("A", 1, 1, window=1000)
    talk.gets("PA", 1, 1, b"hello")
    talk.host("A", 1, 6)
    assert talk.stream.consumed_bytes == 5


def test_a_host_may_take_the_byte_of_the_probe(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake(window=0)
    talk.gives(b"hello")
    talk.wait(0.3)
    talk.gets("A", 1, 1, b"h")
    talk.host("A", 1, 2, window=0)
    assert talk.stream.consumed_bytes == 1
    talk.wait(0.3)
    talk.gets("A", 2, 1, b"e")
    talk.host("A", 1, 3, window=1000)
    talk.gets("PA", 3, 1, b"llo")
    talk.host("A", 1, 7)  # more than was ever sent, and no probe is out
    talk.gets("A", 6, 1)
    talk.host("A", 1, 6)
    assert talk.stream.consumed_bytes == 5


def test_a_window_too_small_for_a_segment_is_used_after_a_while(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake(window=10_000)
    talk.gives(bytes(10_000))
    talk.gives(bytes(2000))
    talk.gets("PA", 1, 1, bytes(10_000))
    talk.host("A", 1, 10_001, window=400)
    talk.gets_nothing()
    talk.wait(0.3)
    talk.gets("A", 10_001, 1, bytes(400))
    talk.host("A", 1, 10_401, window=10_000)
    talk.gets("PA", 10_401, 1, bytes(1600))


def test_probes_without_any_answer_end_the_connection(conversation: Talk) -> None:
    talk = conversation(config=TcpEndpointConfig(user_timeout=20.0))
    talk.handshake(window=0)
    talk.gives(b"hello")
    talk.wait(15)
    talk.host("A", 1, 1, window=0)
    talk.wait(19)
    assert talk.closed == 0
    talk.wait(10)
    assert talk.stream.resets == [ResetCode.TIMED_OUT]
    assert talk.closed == 1


def test_an_old_segment_does_not_move_the_window(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake(window=2000)
    talk.gives(bytes(2000))
    talk.gives(bytes(2000))
    talk.gets("PA", 1, 1, bytes(2000))
    talk.host("A", 1, 1, b"new", window=3000)
    talk.gets("A", 2001, 1, bytes(1000))
    talk.gets("A", 3001, 4)
    talk.host("A", 1, 1, window=60_000)  # sent before, arrived after: outside the window by now
    talk.gets("A", 3001, 4)
    talk.host("A", 4, 1, window=2500)  # shrinks: one of two alike in another order
    talk.gets_nothing()
    talk.host("A", 4, 1, window=4000)
    talk.gets("PA", 3001, 4, bytes(1000))


def test_an_idle_connection_sends_nothing(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake()
    talk.gives(b"x")
    talk.gets("PA", 1, 1, b"x")
    talk.host("A", 1, 2)
    talk.wait(100_000)
    talk.gets_nothing()
    assert talk.wheel.next_deadline is None
    talk.gives(b"y")
    talk.gets("PA", 2, 1, b"y")
