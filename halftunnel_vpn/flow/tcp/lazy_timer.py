"""A deadline that is postponed far more often than it passes.

Every acknowledgement moves the retransmission deadline. Arming a wheel timer each time would cost more than
all other work. So the timer stays where it is. When it fires too early, it is armed for the deadline that is
current then.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final

from halftunnel_vpn.timers import Timer, Wheel

ROUNDING: Final = 1e-6
"""Seconds of tolerance: the wheel divides, and may fire early by a rounding error."""


class Deadline(Timer):
    """Calls ``passed(now)`` once, when the time last given to :meth:`set` has come.

    It is a timer itself and does not own one, because every connection has a deadline.
    """

    __slots__ = ("_armed_for", "_at")

    def __init__(self, wheel: Wheel, passed: Callable[[float], None]) -> None:
        Timer.__init__(self, wheel, passed)
        self._at = inf
        self._armed_for = inf

    def set(self, at: float) -> None:
        """Replace the deadline. Infinity means no deadline."""
        self._at = at
        if at < self._armed_for:
            self._armed_for = at
            self.arm(at)

    def cancel(self) -> None:
        """Remove the deadline and the timer from the wheel."""
        self._at = self._armed_for = inf
        Timer.cancel(self)

    def end(self) -> None:
        """Cancel for the last time. Drop the callback, so that no reference cycle is left."""
        self.cancel()
        self._callback = _do_nothing

    def _fire(self, now: float) -> None:
        self._bucket = -1
        self._armed_for = inf
        at = self._at
        if now < at - ROUNDING:
            self.set(at)
        else:
            self._at = inf
            self._callback(now)


def _do_nothing(now: float) -> None:
    """The callback of an ended deadline. Does nothing."""
