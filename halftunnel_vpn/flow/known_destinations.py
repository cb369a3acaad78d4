"""Remember the destinations that the exit connected to lately.

A SYN to one of them is answered at once, and the first data of the host travels with the OPEN: one round trip
less than waiting for the exit (compare RFC 7413, which saves the same round trip). A destination that is new
or that failed is not in the table, so that a refusal stays visible where it is news.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

MAX_KNOWN_DESTINATIONS: Final = 4096
"""Destinations in the table; the one that was connected to longest ago makes room."""

KNOWN_LIFETIME: Final = 300.0
"""Seconds for which a success counts."""


class KnownDestinations:
    """A bounded table of addresses (4 or 16 bytes) with ports. Times are the monotonic clock."""

    def __init__(self) -> None:
        self._connected_at: OrderedDict[tuple[bytes, int], float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._connected_at)

    def contains(self, address: bytes, port: int, now: float) -> bool:
        """Return whether the exit connected to ``address`` and ``port`` within KNOWN_LIFETIME."""
        connected_at = self._connected_at.get((address, port))
        if connected_at is None:
            return False
        if now - connected_at >= KNOWN_LIFETIME:
            del self._connected_at[address, port]
            return False
        return True

    def add(self, address: bytes, port: int, now: float) -> None:
        """Note that the exit has connected."""
        key = (address, port)
        self._connected_at[key] = now
        self._connected_at.move_to_end(key)
        if len(self._connected_at) > MAX_KNOWN_DESTINATIONS:
            self._connected_at.popitem(last=False)

    def discard(self, address: bytes, port: int) -> None:
        """Forget a destination: the exit could not connect."""
        self._connected_at.pop((address, port), None)

    def clear(self) -> None:
        """Forget everything: another session may lead to another exit."""
        self._connected_at.clear()
