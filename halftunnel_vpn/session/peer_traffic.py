"""What comes in from the peer, as far as this end's own clock depends on it."""

from __future__ import annotations

from typing import Final

from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.session.legs import Legs

FOLLOW: Final = 0.1
"""Seconds for which the exit's clock goes on after the last record of the client's."""

BULK_SECONDS: Final = 5
"""Seconds in a row in which much must come in to be a bulk transfer."""


class PeerTraffic:
    """Counts the other direction, once a slot. ``sends`` is the direction that this end sends in."""

    __slots__ = ("_bulk_rate", "_busy", "_heard", "_heard_at", "_legs", "_received", "_second", "_sends")

    def __init__(self, legs: Legs, sends: Direction, bulk_rate: float) -> None:
        self._legs = legs
        self._sends = sends
        # Bytes a second from which on it is a bulk transfer; 0: never.
        self._bulk_rate = bulk_rate
        # Records of the peer so far, and when the last came.
        self._heard = 0
        self._heard_at = 0.0
        # Bytes so far when this second began, when that was, and the busy seconds in a row.
        self._received = 0
        self._second = 0.0
        self._busy = 0

    def begin(self, now: float) -> None:
        """Start counting: an activity begins."""
        self._heard_at = self._second = now
        self._received = self._bytes_received()
        self._busy = 0

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

    def is_bulk(self, now: float) -> bool:
        """Return whether a bulk transfer comes in."""
        if self._bulk_rate and now - self._second >= 1.0:
            received = self._bytes_received()
            is_busy = received - self._received >= self._bulk_rate * (now - self._second)
            self._busy = self._busy + 1 if is_busy else 0
            self._received = received
            self._second = now
        return self._busy >= BULK_SECONDS

    def _bytes_received(self) -> int:
        received = 0
        for leg in self._legs.all:
            if leg.direction is not self._sends:
                received += leg.bytes_received
        return received
