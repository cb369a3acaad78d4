"""The life cycle of a stream: every line of the table, and nothing beside it."""

from __future__ import annotations

import itertools

import pytest

from halftunnel_vpn.errors import IllegalTransition
from halftunnel_vpn.session.stream_states import StreamEvent, StreamState, next_state

OPEN, ACTIVE, LOCAL, REMOTE, CLOSED = StreamState
OPENED, FIN_QUEUED, FIN_RECEIVED, RESET = StreamEvent

ALLOWED = {
    OPEN: {OPENED: ACTIVE, FIN_QUEUED: LOCAL, FIN_RECEIVED: REMOTE, RESET: CLOSED},
    ACTIVE: {FIN_QUEUED: LOCAL, FIN_RECEIVED: REMOTE, RESET: CLOSED},
    LOCAL: {OPENED: LOCAL, FIN_RECEIVED: CLOSED, RESET: CLOSED},
    REMOTE: {OPENED: REMOTE, FIN_QUEUED: CLOSED, RESET: CLOSED},
    CLOSED: {RESET: CLOSED},
}


def test_the_names_are_those_of_the_specification():
    assert [state.name for state in StreamState] == [
        "OPEN", "ACTIVE", "HALF_CLOSED_LOCAL", "HALF_CLOSED_REMOTE", "CLOSED",
    ]  # fmt: skip
    assert [event.name for event in StreamEvent] == ["OPENED", "FIN_QUEUED", "FIN_RECEIVED", "RESET"]


@pytest.mark.parametrize(("state", "event"), list(itertools.product(StreamState, StreamEvent)))
def test_every_pair_of_state_and_event(state, event):
    after = ALLOWED[state].get(event)
    if after is not None:
        assert next_state(state, event) is after
        return
    with pytest.raises(IllegalTransition, match=f"{state.name} cannot take {event.name}"):
        next_state(state, event)


@pytest.mark.parametrize("state", StreamState)
def test_a_reset_ends_a_stream_from_everywhere(state):
    assert next_state(state, RESET) is CLOSED
