"""The state diagram of RFC 9293, 3.3.2, as a table; the part of it that the passive side goes through.

``SYN_HELD`` is ours: the SYN of the host has arrived and waits, unanswered, until the exit has connected.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from halftunnel_vpn.errors import IllegalTransition


class TcpState(Enum):
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


class TcpEvent(Enum):
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


TRANSITIONS: Final[dict[tuple[TcpState, TcpEvent], TcpState]] = {
    (TcpState.SYN_HELD, TcpEvent.ANSWERED): TcpState.SYN_RECEIVED,
    (TcpState.SYN_RECEIVED, TcpEvent.HANDSHAKE_DONE): TcpState.ESTABLISHED,
    # our side finishes first
    (TcpState.ESTABLISHED, TcpEvent.FIN_QUEUED): TcpState.FIN_WAIT_1,
    (TcpState.FIN_WAIT_1, TcpEvent.FIN_ACKNOWLEDGED): TcpState.FIN_WAIT_2,
    (TcpState.FIN_WAIT_2, TcpEvent.FIN_RECEIVED): TcpState.TIME_WAIT,
    # both at once
    (TcpState.FIN_WAIT_1, TcpEvent.FIN_RECEIVED): TcpState.CLOSING,
    (TcpState.CLOSING, TcpEvent.FIN_ACKNOWLEDGED): TcpState.TIME_WAIT,
    # the host finishes first
    (TcpState.ESTABLISHED, TcpEvent.FIN_RECEIVED): TcpState.CLOSE_WAIT,
    (TcpState.CLOSE_WAIT, TcpEvent.FIN_QUEUED): TcpState.LAST_ACK,
    (TcpState.LAST_ACK, TcpEvent.FIN_ACKNOWLEDGED): TcpState.CLOSED,
    # the end without ceremony
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
"""The stream may still hand over data."""


def next_state(state: TcpState, event: TcpEvent) -> TcpState:
    """The state after ``event``. Raises IllegalTransition where the table has no line."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f"TCP in {state.name} cannot take {event.name}") from None
