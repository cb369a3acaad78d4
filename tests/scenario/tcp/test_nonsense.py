"""Whatever a host sends, and whenever the stream calls, nothing raises and every bound holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from halftunnel_vpn.flow.tcp import NewReno, TcpEndpointConfig, TcpState, Unlimited
from halftunnel_vpn.inet.tcp import TcpSegment
from halftunnel_vpn.protocol.stream_messages import ResetCode

HOST_ISN, SERVER_ISN = 0xFFFF_FFF0, 0xFFFF_FF80
FLAGS = (0x02, 0x12, 0x10, 0x18, 0x11, 0x19, 0x30, 0x04, 0x14)
NEAR = st.one_of(st.integers(-3, 40), st.integers(990, 1010), st.integers(-(1 << 31), 1 << 31))

SEGMENTS = st.tuples(
    st.just("segment"),
    st.sampled_from(FLAGS),
    NEAR,
    NEAR,
    st.integers(0, 40),
    st.sampled_from((0, 1, 3, 60_000)),
    st.lists(st.tuples(NEAR, NEAR), max_size=3),
)
GOOD = st.tuples(st.just("good"), st.sampled_from((0x10, 0x10, 0x11)), st.integers(0, 30), st.integers(0, 60))
CALLS = st.tuples(
    st.sampled_from(
        ("opened", "gives", "gives", "finished", "room", "flush", "wait", "wait", "refused", "aborted")
    ),
    st.integers(0, 2000),
)


@settings(max_examples=200, deadline=None)
@given(
    steps=st.lists(st.one_of(GOOD, GOOD, CALLS, SEGMENTS), max_size=40),
    is_open=st.booleans(),
    sack=st.booleans(),
    is_local=st.booleans(),
)
def test_nonsense(
    conversation: Callable[..., Any], steps: list[Any], is_open: bool, sack: bool, is_local: bool
) -> None:
    talk = conversation(
        sack=sack,
        room=1000,
        congestion=Unlimited() if is_local else NewReno(),
        config=TcpEndpointConfig(window_scale=0, user_timeout=20.0),
    )
    endpoint = talk.endpoint
    if is_open:
        talk.handshake()
    given_bytes = 0
    is_finished = False
    for step in steps:
        match step:
            case ("good", flags, length, _) | ("segment", flags, _, _, length, _, _):
                if step[0] == "good":  # what a host might send next, with whatever acknowledgement is due
                    sequence = HOST_ISN + 1 + len(talk.stream.sent) + talk.stream.is_finished
                    acknowledgement = endpoint._sender.nxt - min(step[3], endpoint._sender.nxt - SERVER_ISN)
                    window, blocks = 60_000, ()
                else:
                    sequence = HOST_ISN + step[2]
                    acknowledgement = SERVER_ISN + step[3]
                    window = step[5]
                    blocks = tuple(
                        ((SERVER_ISN + left) & 0xFFFF_FFFF, (SERVER_ISN + right) & 0xFFFF_FFFF)
                        for left, right in step[6]
                    )
                segment = TcpSegment(
                    40000,
                    80,
                    sequence & 0xFFFF_FFFF,
                    acknowledgement & 0xFFFF_FFFF,
                    flags,
                    window,
                    1000 if flags & 2 else None,
                    0 if flags & 2 else None,
                    sack,
                    blocks,
                    memoryview(bytes(length)),
                )
                if endpoint.segment_arrived(segment, talk.now):
                    assert endpoint.state is not TcpState.CLOSED
            case ("opened", _):
                endpoint.opened(talk.now)
            case ("gives", size):
                if not is_finished and endpoint.state not in (TcpState.SYN_HELD, TcpState.CLOSED):
                    given_bytes += size
                    talk.gives(bytes(size))
            case ("finished", _):
                if endpoint.state not in (TcpState.SYN_HELD, TcpState.CLOSED) and not is_finished:
                    is_finished = True
                    endpoint.finished(talk.now)
            case ("room", size):
                talk.stream.room += size
                endpoint.room_grew(talk.now)
            case ("flush", _):
                endpoint.flush(talk.now)
            case ("wait", size):
                talk.wait(size / 100)
            case ("refused", size) if size % 50 == 0:
                endpoint.refused(ResetCode.REFUSED, talk.now)
            case ("aborted", size) if size % 50 == 0:
                endpoint.aborted(ResetCode.CONNECTION_RESET, talk.now)
        assert talk.stream.consumed_bytes <= given_bytes
        assert (endpoint.state is TcpState.CLOSED) == bool(talk.closed)
    talk.wait(10_000)
    assert talk.closed <= 1
    if talk.closed:
        assert talk.wheel.next_deadline is None
