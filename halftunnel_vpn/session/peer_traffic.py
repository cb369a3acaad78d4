"""What comes in from the peer, as far as this end's own clock depends on it."""

from __future__ import annotations

from typing import Final

from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.session.legs import Legs

FOLLOW: Final = 0.1
"""Seconds for which the exit's clock goes on after the last record of the client's."""


class PeerTraffic:
    """Records of the other direction. ``sends`` is the direction that this end sends in."""

    __slots__ = ("_began", "_legs", "_sends")

    def __init__(self, legs: Legs, sends: Direction) -> None:
        self._legs = legs
        self._sends = sends
        # When the activity began, which counts as a record.
        self._began = 0.0

    def begin(self, now: float) -> None:
        """Start counting: an activity begins."""
        self._began = now

    def is_heard(self, now: float) -> bool:
        """Return whether a record has come within FOLLOW."""
        last = self._began
        for leg in self._legs.all:
            if leg.direction is not self._sends and leg.last_received > last:
                last = leg.last_received
        return now - last < FOLLOW
