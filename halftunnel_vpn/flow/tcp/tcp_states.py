"""The state diagram of RFC 9293, 3.3.2, as a table. It has only the states of the passive side.

``SYN_HELD`` is an addition: the SYN of the host has arrived and waits unanswered until the exit has
connected.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from halftunnel_vpn.errors import IllegalTransition


class TcpState(Enum):
    """The state of a connection, seen from the endpoint in the tunnel."""

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

    __hash__ = object.__hash__  # the one of Enum is computed in Python, four times for each table look-up


class TcpEvent(Enum):
    """An event of a connection, named in the past tense."""

    ANSWERED = auto()
    """Our SYN-ACK went out."""
    HANDSHAKE_DONE = auto()
    """The host has acknowledged our SYN."""
    FIN_QUEUED = auto()
    """The stream has finished; our FIN follows the data that is still to be sent (CLOSE call of the RFC)."""
    FIN_ACKNOWLEDGED = auto()
    """The host has acknowledged our FIN and all data before it."""
    FIN_RECEIVED = auto()
    """The host's FIN has arrived, and all data before it."""
    GONE = auto()
    """Reset by either side, given up, or out of TIME_WAIT."""

    __hash__ = object.__hash__


TRANSITIONS: Final[dict[tuple[TcpState, TcpEvent], TcpState]] = {
    (TcpState.SYN_HELD, TcpEvent.ANSWERED): TcpState.SYN_RECEIVED,
    (TcpState.SYN_RECEIVED, TcpEvent.HANDSHAKE_DONE): TcpState.ESTABLISHED,
    # our side finishes first
    (TcpState.ESTABLISHED, TcpEvent.FIN_QUEUED): TcpState.FIN_WAIT_1,
    (TcpState.FIN_WAIT_1, TcpEvent.FIN_ACKNOWLEDGED): TcpState.FIN_WAIT_2,
    (TcpState.FIN_WAIT_2, TcpEvent.FIN_RECEIVED): TcpState.TIME_WAIT,
    # both sides finish at once
    (TcpState.FIN_WAIT_1, TcpEvent.FIN_RECEIVED): TcpState.CLOSING,
    (TcpState.CLOSING, TcpEvent.FIN_ACKNOWLEDGED): TcpState.TIME_WAIT,
    # the host finishes first
    (TcpState.ESTABLISHED, TcpEvent.FIN_RECEIVED): TcpState.CLOSE_WAIT,
    (TcpState.CLOSE_WAIT, TcpEvent.FIN_QUEUED): TcpState.LAST_ACK,
    (TcpState.LAST_ACK, TcpEvent.FIN_ACKNOWLEDGED): TcpState.CLOSED,
    # the connection ends at once
    (TcpState.SYN_HELD, TcpEvent.GONE): TcpState.CLOSED,
    (TcpState.SYN_RECEIVED, TcpEvent.GONE): TcpState.CLOSED,
    (TcpState.ESTABLISHED, TcpEvent.GONE): TcpState.CLOSED,
    (TcpState.FIN_WAIT_1, TcpEvent.GONE): TcpState.CLOSED,
    (TcpState.FIN_WAIT_2, TcpEvent.GONE): TcpState.CLOSED,
    (TcpState.CLOSING, TcpEvent.GONE): TcpState.CLOSED,
    (TcpState.TIME_WAIT, TcpEvent.GONE): TcpState.CLOSED,
    (TcpState.CLOSE_WAIT, TcpEvent.GONE): TcpState.CLOSED,
    (TcpState.LAST_ACK, TcpEvent.GONE): TcpState.CLOSED,
}

RECEIVING: Final = frozenset({TcpState.ESTABLISHED, TcpState.FIN_WAIT_1, TcpState.FIN_WAIT_2})
"""The host may still send data."""

SENDING: Final = frozenset({TcpState.ESTABLISHED, TcpState.CLOSE_WAIT})
"""The stream may still send data."""


def next_state(state: TcpState, event: TcpEvent) -> TcpState:
    """Return the state after ``event``. Raises IllegalTransition if the table has no such entry."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f"TCP in {state.name} cannot take {event.name}") from None
