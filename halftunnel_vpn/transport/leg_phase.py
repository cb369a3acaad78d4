"""The phases of a leg's life, and the reasons of its end that are faults of the peer."""

from __future__ import annotations

import enum

PEER_FAULTS = frozenset({"text-frame", "message-too-big", "websocket-protocol-error", "side-frame-flood"})
"""Causes of ``leg_closed`` that mean that the peer has violated the protocol."""


class LegPhase(enum.IntEnum):
    """How far a leg has come; it never goes back."""

    OPEN = 0
    """Records go both ways."""
    CLOSING = 1
    """Our Close frame is out: records still come in."""
    DEAF = 2
    """Records go neither way. Only the TCP connection remains to be closed."""
    GONE = 3
    """The socket is closed."""
