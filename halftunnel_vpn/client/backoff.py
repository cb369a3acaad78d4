"""Exponential backoff between attempts, with equal jitter.

Half of each pause is fixed and half is random ("Exponential Backoff And Jitter", AWS Architecture Blog,
2015). With full jitter the bound could double while the pauses are short, so the last pause of a short outage
could be a minute. Here a pause is at most FIRST_DELAY plus the sum of all earlier pauses: who waits for an
exit that was away for some seconds returns within as many again.
"""

from __future__ import annotations

from collections.abc import Callable

FIRST_DELAY = 1.0
"""Seconds: the bound of the first pause."""

GROWTH = 1.5
"""Each later bound, by the one before it."""

MAX_DELAY = 60.0
"""Seconds: the longest pause."""


class Backoff:
    """The pauses of one repeated operation. ``random`` returns numbers in [0, 1)."""

    __slots__ = ("_bound", "_random")

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._bound = FIRST_DELAY

    def next_delay(self) -> float:
        """Return the seconds until the next attempt: from half the bound to the bound."""
        delay = self._bound * (1 + self._random()) / 2
        self._bound = min(self._bound * GROWTH, MAX_DELAY)
        return delay

    def reset(self) -> None:
        """Start again with the first pause, after a success."""
        self._bound = FIRST_DELAY
