"""The table of states."""

from __future__ import annotations

import pytest

from halftunnel_vpn.errors import IllegalTransition
from halftunnel_vpn.flow.tcp.tcp_states import RECEIVING, SENDING, TRANSITIONS, TcpEvent, TcpState, next_state


@pytest.mark.parametrize(
    ("events", "end"),
    [
        ("ANSWERED HANDSHAKE_DONE FIN_QUEUED FIN_ACKNOWLEDGED FIN_RECEIVED GONE", TcpState.CLOSED),
        ("ANSWERED HANDSHAKE_DONE FIN_QUEUED FIN_RECEIVED FIN_ACKNOWLEDGED", TcpState.TIME_WAIT),
        ("ANSWERED HANDSHAKE_DONE FIN_RECEIVED FIN_QUEUED", TcpState.LAST_ACK),
        ("ANSWERED HANDSHAKE_DONE FIN_RECEIVED FIN_QUEUED FIN_ACKNOWLEDGED", TcpState.CLOSED),
        ("GONE", TcpState.CLOSED),
    ],
)
def test_lives(events: str, end: TcpState) -> None:
    state = TcpState.SYN_HELD
    for event in events.split():
        state = next_state(state, TcpEvent[event])
    assert state is end


def test_what_is_not_in_the_table_is_illegal() -> None:
    for state in TcpState:
        for event in TcpEvent:
            if (state, event) not in TRANSITIONS:
                with pytest.raises(IllegalTransition, match=f"{state.name} cannot take {event.name}"):
                    next_state(state, event)


def test_every_state_but_closed_can_end_at_once_and_closed_is_the_end() -> None:
    assert {state for state, event in TRANSITIONS if event is TcpEvent.GONE} == set(TcpState) - {
        TcpState.CLOSED
    }
    assert not [event for state, event in TRANSITIONS if state is TcpState.CLOSED]


def test_data_flows_each_way_until_that_side_has_finished() -> None:
    assert {state for state, event in TRANSITIONS if event is TcpEvent.FIN_RECEIVED} == RECEIVING
    assert {state for state, event in TRANSITIONS if event is TcpEvent.FIN_QUEUED} == SENDING
