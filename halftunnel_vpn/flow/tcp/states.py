"""The state diagram of RFC 9293, 3.3.2, as a table; the part of it that the passive side goes through.

``SYN_HELD`` is ours: the SYN of the host has arrived and waits, unanswered, until the exit has connected.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from halftunnel_vpn.errors import IllegalTransition


class State(Enum):
    """Where a connection stands, seen from the endpoint in the tunnel."""

    SYN_HELD = auto()
    SYN_RECEIVED = auto()
    ESTABLISHED = auto()
    FIN_WAIT_1 = auto()
    FIN_WAIT_2 = auto()
    CLOSING = auto()
    TIME_WAIT = auto()
    CLOSE_WAIT = auto()
    LAST_ACK = auto()
    CLOSED = auto()

    __hash__ = object.__hash__  # Enum's own is computed in Python, four times for a look-up in the table


class Event(Enum):
    """What happened to a connection, in the past tense."""

    ANSWERED = auto()
    """Our SYN-ACK went out."""
    HANDSHAKE_DONE = auto()
    """The host has acknowledged our SYN."""
    FIN_QUEUED = auto()
    """The stream has finished; our FIN goes out behind what is still to be sent (CLOSE call of the RFC)."""
    FIN_ACKNOWLEDGED = auto()
    """The host has acknowledged our FIN and all before it."""
    FIN_RECEIVED = auto()
    """The host's FIN has arrived, and all before it."""
    GONE = auto()
    """Reset by either side, given up, or out of TIME_WAIT."""

    __hash__ = object.__hash__


TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    (State.SYN_HELD, Event.ANSWERED): State.SYN_RECEIVED,
    (State.SYN_RECEIVED, Event.HANDSHAKE_DONE): State.ESTABLISHED,
    # our side finishes first
    (State.ESTABLISHED, Event.FIN_QUEUED): State.FIN_WAIT_1,
    (State.FIN_WAIT_1, Event.FIN_ACKNOWLEDGED): State.FIN_WAIT_2,
    (State.FIN_WAIT_2, Event.FIN_RECEIVED): State.TIME_WAIT,
    # both at once
    (State.FIN_WAIT_1, Event.FIN_RECEIVED): State.CLOSING,
    (State.CLOSING, Event.FIN_ACKNOWLEDGED): State.TIME_WAIT,
    # the host finishes first
    (State.ESTABLISHED, Event.FIN_RECEIVED): State.CLOSE_WAIT,
    (State.CLOSE_WAIT, Event.FIN_QUEUED): State.LAST_ACK,
    (State.LAST_ACK, Event.FIN_ACKNOWLEDGED): State.CLOSED,
    # the end without ceremony
    (State.SYN_HELD, Event.GONE): State.CLOSED,
    (State.SYN_RECEIVED, Event.GONE): State.CLOSED,
    (State.ESTABLISHED, Event.GONE): State.CLOSED,
    (State.FIN_WAIT_1, Event.GONE): State.CLOSED,
    (State.FIN_WAIT_2, Event.GONE): State.CLOSED,
    (State.CLOSING, Event.GONE): State.CLOSED,
    (State.TIME_WAIT, Event.GONE): State.CLOSED,
    (State.CLOSE_WAIT, Event.GONE): State.CLOSED,
    (State.LAST_ACK, Event.GONE): State.CLOSED,
}

RECEIVING: Final = frozenset({State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2})
"""The host may still send data."""

SENDING: Final = frozenset({State.ESTABLISHED, State.CLOSE_WAIT})
"""The stream may still hand over data."""


def next_state(state: State, event: Event) -> State:
    """The state after ``event``. Raises IllegalTransition where the table has no line."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f"TCP in {state.name} cannot take {event.name}") from None
