"""The numbers with which further legs of a session join, and how many of them may go unanswered."""

from __future__ import annotations

from halftunnel_vpn.protocol.keys import Direction

MAX_LEG_NUMBER_AHEAD = 48
"""Consecutive leg numbers without an answer (the exit accepts JOIN_WINDOW above its highest)."""

MAX_AHEAD_OF_REPLACEMENT = 36
"""The same for a leg that replaces one of several,"""

MAX_AHEAD_OF_FURTHER = 24
"""and for a leg beside others: an exit at its limits refuses these. The rest is for the only one."""


class LegNumbers:
    """Counts the numbers of each direction, and the joins that the exit has not answered."""

    def __init__(self) -> None:
        self._next = dict.fromkeys(Direction, 1)
        self._unanswered = dict.fromkeys(Direction, 0)

    def may_take(self, direction: Direction, most: float) -> bool:
        """Return whether fewer than ``most`` numbers in a row are without an answer."""
        return self._unanswered[direction] < most

    def take(self, direction: Direction) -> int:
        """Return the next number."""
        number = self._next[direction]
        self._next[direction] += 1
        self._unanswered[direction] += 1
        return number

    def answered(self, direction: Direction) -> None:
        """Note that a leg has joined: the exit accepts numbers above its."""
        self._unanswered[direction] = 0
