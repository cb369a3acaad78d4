"""A leg of its own for what is urgent, where segments are sent again and again.

TCP delivers in order: behind a segment that is lost, all that follows on the connection waits for a round
trip. With bulk on a connection that is so most of the time on a path that loses. So a ping, a call or a name
gets a connection that carries little, which loses little.

The sender sees the losses. Only the client can open legs: an exit asks it (KeepaliveKind.WANTS_LEG), and the
client says which leg it has opened (KeepaliveKind.URGENT). Each end chooses for the direction in which it
sends; the receiver takes what comes on any leg.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.protocol.stream_messages import KeepaliveKind
from halftunnel_vpn.session.context import SessionContext
from halftunnel_vpn.session.keepalive import LegKeepalive
from halftunnel_vpn.session.legs import Legs, SessionLeg

WANTED_FOR: Final = 300.0
"""Seconds without a sign of losses after which the leg is closed again (client)."""

ASK_AGAIN: Final = 30.0
"""Seconds between two messages of the exit about losses, at least: the client then keeps the leg."""


class UrgentLegs:
    """When a session wants a leg for what is urgent, and which one it is.

    ``asks``: the client opens one when it is asked (exit).
    """

    __slots__ = (
        "_ask_at",
        "_asks",
        "_context",
        "_keepalive",
        "_legs",
        # Called with a direction, the number of a leg there whose path loses, and the time (client).
        # None: no such leg is opened.
        "wanted",
    )

    def __init__(self, context: SessionContext, legs: Legs, keepalive: LegKeepalive, asks: bool) -> None:
        self._context = context
        self._legs = legs
        self._keepalive = keepalive
        self._asks = asks
        self._ask_at = float("-inf")
        self.wanted: Callable[[Direction, int, float], None] | None = None

    def repeats(self, leg: SessionLeg, now: float) -> None:
        """Note that this end sends segments of ``leg`` again and again."""
        if self._context.is_client:
            if self.wanted is not None:
                self.wanted(leg.direction, leg.number, now)
        elif self._asks and now >= self._ask_at:
            self._ask_at = now + ASK_AGAIN
            self._context.counters.count("urgent-legs-asked")
            self._keepalive.send(leg, KeepaliveKind.WANTS_LEG, leg.number, now)

    def joined(self, leg: SessionLeg, now: float) -> None:
        """Tell the exit if ``leg``, which has joined, is for what is urgent downstream (client)."""
        if leg.is_urgent and leg.direction is not self._context.sends:
            self._keepalive.send(leg, KeepaliveKind.URGENT, leg.number, now)

    def received(self, kind: KeepaliveKind, number: int, now: float) -> None:
        """Take the peer's message about leg ``number``; one that only the other end sends is ignored."""
        if self._context.is_client:
            if kind is KeepaliveKind.WANTS_LEG and self.wanted is not None:
                self.wanted(Direction.DOWNSTREAM, number, now)
        elif kind is KeepaliveKind.URGENT:
            for leg in self._legs.senders:
                if leg.number == number and not leg.is_urgent:
                    leg.is_urgent = True
                    self._legs.divide()
