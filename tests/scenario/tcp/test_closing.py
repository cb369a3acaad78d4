"""How connections end: cleanly, one side after the other, and abruptly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from halftunnel_vpn.flow.tcp import TcpEndpointConfig, TcpState
from halftunnel_vpn.inet.tcp import SYN, TcpSegment
from halftunnel_vpn.protocol.stream_messages import ResetCode

Talk = Callable[..., Any]


def test_the_host_finishes_first_and_reads_a_long_answer(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake()
    talk.host("FPA", 1, 1, b"question")
    talk.gets("A", 1, 10)
    assert talk.stream.is_finished
    assert talk.endpoint.state is TcpState.CLOSE_WAIT
    for at in (1, 5001, 10_001):
        talk.gives(bytes(5000))
        talk.gets("PA", at, 10, bytes(5000))
        talk.host("A", 10, at + 5000)
    assert talk.stream.consumed_bytes == 15_000
    talk.endpoint.finished(talk.now)
    talk.gets("FA", 15_001, 10)
    assert talk.endpoint.state is TcpState.LAST_ACK
    talk.host("A", 10, 15_002)
    assert talk.endpoint.state is TcpState.CLOSED
    assert talk.closed == 1
    talk.wait(1000)
    talk.gets_nothing()


def test_the_fin_that_follows_data_leaves_with_it(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake()
    talk.stream.fin_follows = True
    talk.gives(b"a short answer")
    talk.endpoint.finished(talk.now)
    talk.gets("FPA", 1, 1, b"a short answer")
    talk.gets_nothing()
    assert talk.endpoint.state is TcpState.FIN_WAIT_1
    talk.host("FA", 1, 16)
    talk.gets("A", 16, 2)
    assert talk.endpoint.state is TcpState.TIME_WAIT
    assert talk.stream.consumed_bytes == 14


def test_the_fin_that_follows_data_waits_with_it_for_the_window(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake(window=1000)
    talk.stream.fin_follows = True
    talk.gives(bytes(1500))
    talk.endpoint.finished(talk.now)
    talk.gets("A", 1, 1, bytes(1000))
    talk.gets_nothing()
    talk.host("A", 1, 1001)
    talk.gets("FPA", 1001, 1, bytes(500))
    talk.host("A", 1, 1502)
    assert talk.endpoint.state is TcpState.FIN_WAIT_2


def test_the_stream_finishes_first_and_reads_a_long_answer(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake()
    talk.gives(b"question")
    talk.gets("PA", 1, 1, b"question")
    talk.endpoint.finished(talk.now)
    talk.gets("FA", 9, 1)
    talk.host("A", 1, 10)
    assert talk.endpoint.state is TcpState.FIN_WAIT_2
    talk.wait(500)
    for at in (1, 1001, 2001):
        talk.host("A", at, 10, bytes(1000))
        talk.gets("A", 10, at + 1000)
    talk.host("FA", 3001, 10)
    talk.gets("A", 10, 3002)
    assert talk.stream.sent == bytes(3000)
    assert talk.stream.is_finished
    assert talk.endpoint.state is TcpState.TIME_WAIT
    talk.wait(2.1)
    assert talk.closed == 1
    talk.gets_nothing()


def test_fin_and_its_acknowledgement_in_one_segment(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake()
    talk.endpoint.finished(talk.now)
    talk.gets("FA", 1, 1)
    talk.host("FA", 1, 2)
    talk.gets("A", 2, 2)
    assert talk.endpoint.state is TcpState.TIME_WAIT


def test_both_finish_at_once(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake()
    talk.endpoint.finished(talk.now)
    talk.gets("FA", 1, 1)
    talk.host("FA", 1, 1)
    talk.gets("A", 2, 2)
    assert talk.endpoint.state is TcpState.CLOSING
    talk.host("A", 2, 2)
    assert talk.endpoint.state is TcpState.TIME_WAIT
    talk.wait(2.1)
    assert talk.closed == 1


def test_a_stream_that_finishes_because_the_host_did(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake()
    talk.stream.on_finish = lambda: talk.endpoint.finished(talk.now)
    talk.host("FA", 1, 1)
    talk.gets("FA", 1, 2)
    assert talk.endpoint.state is TcpState.LAST_ACK
    talk.host("A", 2, 2)
    assert talk.closed == 1
    talk.gets_nothing()


def test_a_lost_fin_is_sent_again(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake()
    talk.gives(b"bye")
    talk.endpoint.finished(talk.now)
    talk.gets("PA", 1, 1, b"bye")
    talk.gets("FA", 4, 1)
    talk.wait(0.25)
    talk.gets("FPA", 1, 1, b"bye")
    talk.host("A", 1, 4)
    assert talk.stream.consumed_bytes == 3
    talk.gets_nothing()
    talk.wait(0.45)
    talk.gets("FPA", 4, 1)
    talk.host("A", 1, 5)
    assert talk.endpoint.state is TcpState.FIN_WAIT_2
    assert talk.stream.consumed_bytes == 3


def test_the_fin_waits_for_data_that_the_window_holds_back(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake(window=2000)
    talk.gives(bytes(3000))
    talk.endpoint.finished(talk.now)
    assert talk.endpoint.state is TcpState.FIN_WAIT_1
    talk.gets("A", 1, 1, bytes(2000))
    talk.gets_nothing()
    talk.host("A", 1, 2001, window=2000)
    talk.gets("FPA", 2001, 1, bytes(1000))
    talk.host("A", 1, 3002)
    assert talk.endpoint.state is TcpState.FIN_WAIT_2


def test_a_fin_before_its_turn_waits_for_the_data(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake()
    talk.host("FA", 11, 1)
    talk.gets("A", 1, 1)
    assert not talk.stream.is_finished
    talk.host("A", 1, 1, b"0123456789")
    talk.gets("A", 1, 12)
    assert talk.stream.sent == b"0123456789"
    assert talk.endpoint.state is TcpState.CLOSE_WAIT


def test_time_wait_acknowledges_the_fin_again_and_starts_over(conversation: Talk) -> None:
    talk = conversation(config=TcpEndpointConfig(time_wait=2.0))
    talk.handshake()
    talk.endpoint.finished(talk.now)
    talk.gets("FA", 1, 1)
    talk.host("FA", 1, 2)
    talk.gets("A", 2, 2)
    talk.wait(1.5)
    talk.host("FA", 1, 2)
    talk.gets("A", 2, 2)
    talk.wait(1.5)
    assert talk.closed == 0
    talk.wait(1)
    assert talk.closed == 1


def test_a_new_connection_may_replace_one_in_time_wait(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake()
    talk.endpoint.finished(talk.now)
    talk.gets("FA", 1, 1)

    def syn(sequence: int) -> TcpSegment:
        number = (0xFFFF_FFF0 + sequence) % (1 << 32)
        return TcpSegment(40000, 80, number, 0, SYN, 1000, None, None, False, (), memoryview(b""))

    assert not talk.endpoint.may_be_replaced_by(syn(1000))
    talk.host("FA", 1, 2)
    talk.gets("A", 2, 2)
    assert talk.endpoint.may_be_replaced_by(syn(1000))
    assert not talk.endpoint.may_be_replaced_by(syn(2))
    talk.endpoint.abort(talk.now)
    talk.gets_nothing()
    assert talk.closed == 1


def test_a_reset_of_the_host_ends_the_stream(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake()
    talk.gives(b"unheard")
    talk.gets("PA", 1, 1, b"unheard")
    talk.host("RA", 1, 8)
    assert talk.stream.resets == [ResetCode.CONNECTION_RESET]
    assert talk.closed == 1
    talk.endpoint.data_received(memoryview(b"too late"), talk.now)
    talk.endpoint.finished(talk.now)
    talk.endpoint.aborted(ResetCode.NORMAL, talk.now)
    talk.endpoint.room_grew(talk.now)
    talk.endpoint.flush(talk.now)
    talk.wait(1000)
    talk.gets_nothing()
    assert talk.closed == 1


def test_only_the_exact_reset_counts(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake()
    talk.host("R", 500)
    talk.gets("A", 1, 1)  # a challenge
    talk.host("R", 99_999_999)
    talk.host("R", 0)
    talk.gets_nothing()
    assert talk.endpoint.state is TcpState.ESTABLISHED
    talk.host("R", 1)
    assert talk.endpoint.state is TcpState.CLOSED


def test_a_syn_in_the_middle_is_challenged(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake()
    talk.host("S", 1)
    talk.gets("A", 1, 1)
    talk.host("S", 70_000_000)
    talk.gets("A", 1, 1)
    talk.host("SA", 0, 1)
    talk.gets("A", 1, 1)
    assert talk.endpoint.state is TcpState.ESTABLISHED
    assert talk.counters.counted["tcp-challenge-acks"] == 3


def test_challenges_are_limited(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake()
    for _ in range(15):
        talk.host("S", 1)
    assert len(talk.frames) == 10
    assert talk.counters.dropped["tcp-challenge-limit"] == 5
    talk.frames.clear()
    talk.wait(1)
    talk.host("S", 1)
    talk.gets("A", 1, 1)


def test_an_acknowledgement_of_what_was_never_sent_is_challenged(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake()
    talk.host("A", 1, 2, b"data")
    talk.gets("A", 1, 1)
    talk.host("A", 1, 1 + (1 << 31) + 5, b"data")
    talk.gets("A", 1, 1)
    assert talk.stream.sent == b""
    assert talk.counters.dropped["tcp-bad-acknowledgement"] == 2


def test_an_old_acknowledgement_does_not_spoil_the_data(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake()
    talk.gives(bytes(100))
    talk.gets("PA", 1, 1, bytes(100))
    talk.host("A", 1, 101)
    talk.host("A", 1, 51, b"data")
    talk.gets("A", 101, 5)
    assert talk.stream.sent == b"data"


def test_data_behind_the_fin_is_dropped(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake()
    talk.host("FA", 1, 1)
    talk.gets("A", 1, 2)
    talk.host("A", 2, 1, b"more")
    talk.gets_nothing()
    assert talk.counters.dropped["tcp-after-fin"] == 1
    assert talk.stream.sent == b""


def test_a_stream_that_aborts_resets_the_host_at_once(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake(window=2000)
    talk.gives(bytes(3000))
    talk.gets("A", 1, 1, bytes(2000))
    talk.endpoint.aborted(ResetCode.CONNECTION_RESET, talk.now)
    talk.gets("RA", 2001, 1)
    assert talk.closed == 1
    assert talk.stream.resets == []


def test_a_stream_that_aborts_when_it_gets_data(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake()
    talk.stream.on_send = lambda: talk.endpoint.aborted(ResetCode.DENIED, talk.now)
    talk.host("A", 1, 1, b"first")
    talk.gets("RA", 1, 6)
    talk.gets_nothing()


def test_a_stream_that_aborts_when_it_gets_late_data(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake()
    talk.host("FA", 6, 1, b"second")
    talk.gets("A", 1, 1, sack=[(6, 12)])
    talk.stream.on_send = lambda: talk.endpoint.aborted(ResetCode.DENIED, talk.now)
    talk.host("A", 1, 1, b"first")
    talk.gets("RA", 1, 6)
    talk.gets_nothing()
    assert not talk.stream.is_finished


def test_abort_ends_both_sides(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake()
    talk.endpoint.abort(talk.now)
    talk.gets("RA", 1, 1)
    assert talk.stream.resets == [ResetCode.SHUTDOWN]
    assert talk.closed == 1


def test_a_host_that_answers_nothing_is_given_up(conversation: Talk) -> None:
    talk = conversation(config=TcpEndpointConfig(user_timeout=10.0))
    talk.handshake()
    talk.gives(b"anybody?")
    times = []
    while not talk.closed:
        talk.wait(0.1)
        while talk.frames:
            flags = str(talk.frames.popleft().flags)
            times.append((flags, round(talk.now - 100, 1)))
    assert times[:4] == [("PA", 0.1), ("PA", 0.3), ("PA", 0.7), ("PA", 1.5)]
    assert times[-1] == ("RA", 10.1)
    assert talk.stream.resets == [ResetCode.TIMED_OUT]


def test_keepalive_probes_are_answered_in_every_state_that_a_live_peer_answers_in(conversation: Talk) -> None:
    """The probe is one byte before what is next, with no text, or with one byte of rubbish."""
    talk = conversation()
    talk.handshake()

    def probe(their_next: int, our_next: int) -> None:
        for rubbish in (b"", b"x"):
            talk.host("A", their_next - 1, our_next, rubbish)
            talk.gets("A", our_next, their_next)
        talk.gets_nothing()
        talk.wait(5)

    probe(1, 1)
    talk.host("PA", 1, 1, b"question")
    talk.gets("A", 1, 9)
    probe(9, 1)
    talk.host("FA", 9, 1)
    talk.gets("A", 1, 10)
    assert talk.endpoint.state is TcpState.CLOSE_WAIT
    probe(10, 1)
    assert not talk.counters.dropped["tcp-out-of-window"]
    assert talk.counters.counted["tcp-probes-answered"] == 6
    assert bytes(talk.stream.sent) == b"question"


def test_keepalive_probes_are_answered_with_a_closed_window_and_after_our_fin(
    conversation: Talk,
) -> None:
    talk = conversation(room=4)
    talk.handshake()
    talk.host("PA", 1, 1, b"four")
    talk.gets("A", 1, 5)
    talk.host("A", 4, 1)
    talk.gets("A", 1, 5)
    talk.endpoint.finished(talk.now)
    talk.gets("FA", 1, 5)
    talk.host("A", 5, 2)
    assert talk.endpoint.state is TcpState.FIN_WAIT_2
    talk.host("A", 4, 2)
    talk.gets("A", 2, 5)


def test_urgent_text_stays_where_it_was(conversation: Talk) -> None:
    talk = conversation()
    talk.handshake()
    talk.host("PA", 1, 1, b"abc")
    talk.host("PAU", 4, 1, b"!")
    talk.host("PA", 5, 1, b"def")
    assert bytes(talk.stream.sent) == b"abc!def"
