"""What comes in from the peer, as far as this end's own clock depends on it."""

from __future__ import annotations

from typing import Final

from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.session.legs import Legs

FOLLOW: Final = 0.1
"""Seconds for which the exit's clock goes on after the last record of the client's."""


class PeerTraffic:
    """Records of the other direction. ``sends`` is the direction that this end sends in."""

    __slots__ = ("_heard", "_heard_at", "_legs", "_sends")

    def __init__(self, legs: Legs, sends: Direction) -> None:
        self._legs = legs
        self._sends = sends
        # Records of the peer so far, and when the last came.
        self._heard = 0
        self._heard_at = 0.0

    def begin(self, now: float) -> None:
        """Start counting: an activity begins."""
        self._heard_at = now

    def is_heard(self, now: float) -> bool:
        """Return whether a record has come within FOLLOW."""
        heard = 0
        for leg in self._legs.all:
            if leg.direction is not self._sends:
                heard += leg.records_received
        if heard != self._heard:
            self._heard = heard
            self._heard_at = now
        return now - self._heard_at < FOLLOW
