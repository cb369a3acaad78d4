"""The life cycle of a stream as a table."""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from halftunnel_vpn.errors import IllegalTransition


class StreamState(Enum):
    """The state of a stream, seen from this end."""

    OPEN = auto()
    ACTIVE = auto()
    HALF_CLOSED_LOCAL = auto()
    HALF_CLOSED_REMOTE = auto()
    CLOSED = auto()

    __hash__ = object.__hash__  # Enum's own is computed in Python, four times for a look-up in the table


class StreamEvent(Enum):
    """What happened to a stream, in the past tense."""

    OPENED = auto()
    FIN_QUEUED = auto()
    FIN_RECEIVED = auto()
    RESET = auto()

    __hash__ = object.__hash__


_TRANSITIONS: Final[dict[tuple[StreamState, StreamEvent], StreamState]] = {
    (StreamState.OPEN, StreamEvent.OPENED): StreamState.ACTIVE,
    (StreamState.OPEN, StreamEvent.FIN_QUEUED): StreamState.HALF_CLOSED_LOCAL,
    # what the client sent at once may be finished before the exit has connected
    (StreamState.OPEN, StreamEvent.FIN_RECEIVED): StreamState.HALF_CLOSED_REMOTE,
    (StreamState.HALF_CLOSED_REMOTE, StreamEvent.OPENED): StreamState.HALF_CLOSED_REMOTE,
    (StreamState.OPEN, StreamEvent.RESET): StreamState.CLOSED,
    (StreamState.ACTIVE, StreamEvent.FIN_QUEUED): StreamState.HALF_CLOSED_LOCAL,
    (StreamState.ACTIVE, StreamEvent.FIN_RECEIVED): StreamState.HALF_CLOSED_REMOTE,
    (StreamState.ACTIVE, StreamEvent.RESET): StreamState.CLOSED,
    # the same, seen by the client
    (StreamState.HALF_CLOSED_LOCAL, StreamEvent.OPENED): StreamState.HALF_CLOSED_LOCAL,
    (StreamState.HALF_CLOSED_LOCAL, StreamEvent.FIN_RECEIVED): StreamState.CLOSED,
    (StreamState.HALF_CLOSED_LOCAL, StreamEvent.RESET): StreamState.CLOSED,
    (StreamState.HALF_CLOSED_REMOTE, StreamEvent.FIN_QUEUED): StreamState.CLOSED,
    (StreamState.HALF_CLOSED_REMOTE, StreamEvent.RESET): StreamState.CLOSED,
    # both directions are finished, but a FIN of ours may still wait for its acknowledgement
    (StreamState.CLOSED, StreamEvent.RESET): StreamState.CLOSED,
}


def next_state(state: StreamState, event: StreamEvent) -> StreamState:
    """Return the state after ``event``; raises IllegalTransition if the table has no entry."""
    try:
        return _TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f"a stream in {state.name} cannot take {event.name}") from None
