"""Further slots for legs that carry only what is urgent, as long as the path of a direction loses."""

from __future__ import annotations

from collections.abc import Callable

from halftunnel_vpn.client.legs.slots import Slot
from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.session.urgent_leg import WANTED_FOR
from halftunnel_vpn.timers import Timer, Wheel

AGAIN_AFTER = 300.0
"""Seconds until such a leg is opened again after one could not be opened, or has given way to another."""


class UrgentSlots:
    """At most one urgent leg for each direction. It is closed when another leg cannot be opened.

    ``begin`` is called with a direction and the number of the leg there whose path loses. It returns a new
    slot that is kept up from now on, None for no such slot.
    """

    def __init__(self, wheel: Wheel, begin: Callable[[Direction, int], Slot | None]) -> None:
        self._begin = begin
        self._slots: dict[Direction, Slot] = {}
        # Until when each is wanted.
        self._until: dict[Direction, float] = {}
        # Until when none is opened, after one has given way.
        self._not_before = dict.fromkeys(Direction, float("-inf"))
        self._timer: Timer = wheel.timer(self._check)
        self._is_closed = False

    def wanted(self, direction: Direction, number: int, now: float) -> None:
        """Keep a leg for what is urgent: the path of leg ``number`` of ``direction`` loses."""
        if self._is_closed or now < self._not_before[direction]:
            return
        if direction not in self._slots:
            slot = self._begin(direction, number)
            if slot is None:
                return
            self._slots[direction] = slot
        self._until[direction] = now + WANTED_FOR
        if not self._timer.armed:
            self._timer.arm(now + WANTED_FOR)

    def give_way(self, direction: Direction, now: float, url: str | None = None) -> bool:
        """Close the slot of ``direction``, if there is one that leads to ``url``; None: to any.

        Return whether there was one.
        """
        slot = self._slots.get(direction)
        if slot is None or (url is not None and url not in slot.urls):
            return False
        del self._slots[direction], self._until[direction]
        self._not_before[direction] = now + AGAIN_AFTER
        slot.close()
        return True

    def close(self) -> None:
        """Open and close no slot from now on: the session is over."""
        self._is_closed = True
        self._timer.cancel()

    def _check(self, now: float) -> None:
        for direction, until in list(self._until.items()):
            if now >= until:
                del self._until[direction]
                self._slots.pop(direction).close()
        if self._until:
            self._timer.arm(min(self._until.values()))
