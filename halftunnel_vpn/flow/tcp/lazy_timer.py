"""A deadline that is put off far more often than it passes.

Every acknowledgement moves the retransmission deadline. Arming a wheel timer each time would cost more than
all the rest, so the timer is left where it is: when it runs out too early it finds the deadline there is
then, and goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final

from halftunnel_vpn.timers import Timer, Wheel

ROUNDING: Final = 1e-6
"""Seconds that count as nothing: the wheel divides, and may be early by the last bit of a number."""


class Deadline(Timer):
    """Calls ``passed(now)`` once the time last given to :meth:`set` has come.

    A timer itself, and not the owner of one: every connection has one of these.
    """

    __slots__ = ("_armed_for", "_at")

    def __init__(self, wheel: Wheel, passed: Callable[[float], None]) -> None:
        Timer.__init__(self, wheel, passed)
        self._at = inf
        self._armed_for = inf

    def set(self, at: float) -> None:
        """Replace the deadline; infinity means never."""
        self._at = at
        if at < self._armed_for:
            self._armed_for = at
            self.arm(at)

    def cancel(self) -> None:
        """Never, and let go of the wheel."""
        self._at = self._armed_for = inf
        Timer.cancel(self)

    def end(self) -> None:
        """Never again: lets go of whom it called, so that the garbage collector has nothing to find."""
        self.cancel()
        self._callback = _nobody

    def _fire(self, now: float) -> None:
        self._bucket = -1
        self._armed_for = inf
        at = self._at
        if now < at - ROUNDING:
            self.set(at)
        else:
            self._at = inf
            self._callback(now)


def _nobody(now: float) -> None:
    """Whom a deadline calls that is over."""
