"""How connections begin: the SYN is held until the exit has connected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from halftunnel_vpn.flow.tcp import TcpEndpointConfig, TcpState
from halftunnel_vpn.protocol.stream_messages import ResetCode

Talk = Callable[..., Any]


def test_the_syn_is_answered_when_the_exit_has_connected(conversation: Talk) -> None:
    talk = conversation()
    talk.gets_nothing()
    talk.host("S", 0)  # the host grows impatient
    talk.gets_nothing()
    assert talk.counters.dropped["tcp-syn-repeated"] == 1

    talk.wait(3)
    talk.endpoint.opened(talk.now)
    answer = talk.gets("SA", 0, 1, window=65535)
    assert dict(answer.options) == {"MSS": 1460, "SAckOK": b"", "NOP": None, "WScale": 8}
    talk.host("A", 1, 1)
    assert talk.endpoint.state is TcpState.ESTABLISHED
    talk.endpoint.opened(talk.now)
    talk.wait(100)
    talk.gets_nothing()


def test_options_are_offered_only_where_the_host_offers_them(conversation: Talk) -> None:
    talk = conversation(mss=None, scale=None, sack=False, version=6)
    talk.endpoint.opened(talk.now)
    assert talk.gets("SA", 0, 1).options == [("MSS", 1440)]
    talk.host("A", 1, 1)
    talk.gives(bytes(3000))
    talk.gets("PA", 1, 1, bytes(3000), window=65535)  # not scaled


def test_windows_are_scaled_by_what_was_agreed(conversation: Talk) -> None:
    talk = conversation(scale=10, room=1 << 20)
    talk.endpoint.opened(talk.now)
    talk.gets("SA", 0, 1, window=65535)
    talk.host("A", 1, 1, window=200 << 10)
    talk.gives(bytes(60_000))
    talk.gives(bytes(60_000))
    talk.gets("PA", 1, 1, bytes(60_000), window=0x1000)
    talk.gets("PA", 60_001, 1, bytes(60_000))


def test_data_and_fin_may_come_with_the_handshake(conversation: Talk) -> None:
    talk = conversation()
    talk.endpoint.opened(talk.now)
    talk.gets("SA", 0, 1)
    talk.host("FPA", 1, 1, b"GET /")
    assert talk.stream.sent == b"GET /"
    assert talk.stream.is_finished
    talk.gets("A", 1, 7)
    assert talk.endpoint.state is TcpState.CLOSE_WAIT


def test_what_the_stream_gives_before_the_handshake_waits_for_it(conversation: Talk) -> None:
    talk = conversation()
    talk.endpoint.opened(talk.now)
    talk.gets("SA", 0, 1)
    talk.gives(b"220 ")
    talk.gives(b"ready")
    talk.endpoint.finished(talk.now)
    talk.gets_nothing()
    talk.host("A", 1, 1)
    talk.gets("FPA", 1, 1, b"220 ready")
    assert talk.endpoint.state is TcpState.FIN_WAIT_1


def test_the_syn_ack_is_repeated_with_growing_pauses_and_then_given_up(conversation: Talk) -> None:
    talk = conversation(config=TcpEndpointConfig(syn_ack_retries=2))
    talk.endpoint.opened(talk.now)
    talk.gets("SA", 0, 1)
    talk.wait(0.9)
    talk.gets_nothing()
    talk.wait(0.2)
    talk.gets("SA", 0, 1)
    talk.wait(1.8)
    talk.gets_nothing()
    talk.wait(0.2)
    talk.gets("SA", 0, 1)
    talk.wait(4)
    talk.gets("RA", 1, 1)
    assert talk.closed == 1
    assert talk.stream.resets == [ResetCode.TIMED_OUT]


def test_a_lost_syn_ack_is_repeated_when_the_host_asks_again(conversation: Talk) -> None:
    talk = conversation()
    talk.endpoint.opened(talk.now)
    talk.gets("SA", 0, 1)
    talk.host("S", 0)
    talk.gets("SA", 0, 1)
    talk.host("A", 1, 1)
    assert talk.endpoint.state is TcpState.ESTABLISHED


def test_an_acknowledgement_of_something_else_is_reset(conversation: Talk) -> None:
    talk = conversation()
    talk.endpoint.opened(talk.now)
    talk.gets("SA", 0, 1)
    talk.host("A", 1, 77)
    talk.gets("R", 77)
    assert talk.endpoint.state is TcpState.SYN_RECEIVED
    talk.host("A", 1, 1)
    assert talk.endpoint.state is TcpState.ESTABLISHED


def test_a_host_that_gave_up_resets_the_answer(conversation: Talk) -> None:
    talk = conversation()
    talk.endpoint.opened(talk.now)
    talk.gets("SA", 0, 1)
    talk.host("R", 1)
    assert talk.closed == 1
    assert talk.stream.resets == [ResetCode.CONNECTION_RESET]


def test_a_host_that_gives_up_while_the_syn_is_held(conversation: Talk) -> None:
    talk = conversation()
    talk.host("R", 2)
    assert talk.closed == 0
    talk.host("R", 1)
    assert talk.stream.resets == [ResetCode.CONNECTION_RESET]
    assert talk.closed == 1
    talk.endpoint.opened(talk.now)
    talk.host("A", 1, 1)
    talk.wait(100)
    talk.gets_nothing()
    assert talk.counters.dropped["tcp-closed"] == 1


def test_a_new_attempt_from_the_same_port_replaces_the_one_that_is_held(conversation: Talk) -> None:
    talk = conversation()
    talk.host("S", 5000)
    talk.endpoint.opened(talk.now)
    talk.gets("SA", 0, 5001)
    talk.host("PA", 5001, 1, b"hello")
    talk.gets("A", 1, 5006)
    assert talk.stream.sent == b"hello"


def test_a_stray_segment_while_the_syn_is_held_is_reset(conversation: Talk) -> None:
    talk = conversation()
    talk.host("A", 1, 400)
    talk.gets("R", 400)
    assert talk.endpoint.state is TcpState.SYN_HELD


@pytest.mark.parametrize("refusal_handled", [None, False])
def test_a_refusal_becomes_a_reset(conversation: Talk, refusal_handled: bool | None) -> None:
    talk = conversation(refusal_handled=refusal_handled)
    talk.endpoint.refused(ResetCode.REFUSED, talk.now)
    reset = talk.frames.popleft()
    assert (str(reset.flags), reset.seq) == ("RA", 0)
    assert talk.closed == 1
    assert talk.stream.resets == []


def test_a_refusal_that_was_told_by_icmp_is_silent(conversation: Talk) -> None:
    talk = conversation(refusal_handled=True)
    talk.endpoint.refused(ResetCode.HOST_UNREACHABLE, talk.now)
    talk.gets_nothing()
    assert talk.refusals == [ResetCode.HOST_UNREACHABLE]
    assert talk.closed == 1


def test_an_exit_that_never_answers_is_a_refusal(conversation: Talk) -> None:
    talk = conversation(refusal_handled=True)
    talk.wait(29)
    assert talk.closed == 0
    talk.wait(1.1)
    assert talk.refusals == [ResetCode.TIMED_OUT]
    assert talk.stream.resets == [ResetCode.TIMED_OUT]
    assert talk.closed == 1


def test_a_stream_that_ends_while_the_syn_is_held(conversation: Talk) -> None:
    talk = conversation()
    talk.endpoint.aborted(ResetCode.SHUTDOWN, talk.now)
    assert str(talk.frames.popleft().flags) == "RA"
    assert talk.closed == 1


def test_answering_at_once_sends_the_first_bytes_with_the_opening(conversation: Talk) -> None:
    talk = conversation(config=TcpEndpointConfig(answer_at_once=True))
    talk.gets("SA", 0, 1)
    talk.host("A", 1, 1)
    talk.host("PA", 1, 1, b"early")
    talk.gets("A", 1, 6)
    assert talk.stream.sent == b"early"
    talk.endpoint.opened(talk.now)
    talk.gets_nothing()


def test_answering_at_once_turns_a_refusal_into_a_reset(conversation: Talk) -> None:
    talk = conversation(config=TcpEndpointConfig(answer_at_once=True), refusal_handled=True)
    talk.gets("SA", 0, 1)
    talk.host("A", 1, 1)
    talk.endpoint.refused(ResetCode.HOST_UNREACHABLE, talk.now)
    talk.gets("RA", 1, 1)
    assert talk.refusals == []
    assert talk.closed == 1
