"""Counts and limits what relays move between streams and sockets, for all relays of one client together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from halftunnel_vpn.timers import Wheel

SMALLEST_BURST: Final = 128 * 1024
"""Bytes that may pass at once, however low the rate is: two pieces."""

BURST: Final = 0.02
"""Seconds for which the rate may be saved up; several times the granularity of timers."""


class RateGate:
    """A token bucket for one direction. Relays ask before they move bytes, and report what they moved.

    A relay may move one piece more than there is; the debt is paid by waiting, so the rate holds over time.
    Relays wait in turn; each must wait at most once at a time, so their number bounds the queue.
    """

    __slots__ = ("_burst", "_clock", "_left", "_timer", "_updated", "_waiting", "rate")

    def __init__(self, wheel: Wheel, clock: Callable[[], float]) -> None:
        self.rate = 0.0
        """Bytes a second; 0: no limit, then there is nothing to ask or to report."""
        self._clock = clock
        self._burst = self._left = 0.0
        self._updated = 0.0
        self._timer = wheel.timer(self._pass_on)
        self._waiting: deque[Callable[[], None]] = deque()

    def set_rate(self, rate: float) -> None:
        """Limit to ``rate`` bytes a second from now on; 0 lifts the limit."""
        if rate == self.rate:
            return
        self.rate = rate
        self._burst = self._left = max(SMALLEST_BURST, rate * BURST)
        self._updated = self._clock()
        if self._waiting:
            self._timer.arm(self._updated)

    def is_open(self) -> bool:
        """Return whether bytes may pass now."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._updated) * self.rate)
        self._updated = now
        return self._left > 0

    def take(self, count: int) -> None:
        """Take note of ``count`` bytes that have passed."""
        self._left -= count

    def wait(self, again: Callable[[], None]) -> None:
        """Call ``again`` once, when it is its turn and bytes may pass."""
        self._waiting.append(again)
        if not self._timer.armed:
            self._timer.arm(self._clock() + max(0.0, -self._left / self.rate))

    def _pass_on(self, now: float) -> None:
        # Those that come back while this runs wait for another turn.
        try:
            for _ in range(len(self._waiting)):
                if self.rate and not self.is_open():
                    break
                self._waiting.popleft()()
        finally:  # one that raises must not keep the others waiting
            if self._waiting:
                self._timer.arm(now + (max(0.0, -self._left / self.rate) if self.rate else 0.0))


class Meter:
    """What one client has moved since the process began, and its gates."""

    __slots__ = ("down", "received", "sent", "up")

    def __init__(self, wheel: Wheel, clock: Callable[[], float]) -> None:
        self.sent = 0
        """Bytes from the client to destinations."""
        self.received = 0
        """Bytes from destinations to the client."""
        self.up = RateGate(wheel, clock)
        self.down = RateGate(wheel, clock)

    def set_rate(self, rate: float) -> None:
        """Limit each direction to ``rate`` bytes a second; 0: no limit."""
        self.up.set_rate(rate)
        self.down.set_rate(rate)
