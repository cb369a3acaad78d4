"""Waiting between attempts: exponential, with equal jitter.

Half of each pause is fixed and half is chance ("Exponential Backoff And Jitter", AWS Architecture Blog,
2015). Full jitter would let the bound double while the pauses drawn are short, and then wait a minute at the
end of a short outage; here a pause is at most FIRST_DELAY and twice as long as all that were before it.
"""

from __future__ import annotations

from collections.abc import Callable

FIRST_DELAY = 1.0
"""Seconds: the bound of the first pause; each later one's is twice as long."""

MAX_DELAY = 60.0
"""Seconds: no pause is longer."""


class Backoff:
    """The pauses of one thing that is tried again and again. ``random`` gives numbers in [0, 1)."""

    __slots__ = ("_bound", "_random")

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._bound = FIRST_DELAY

    def next_delay(self) -> float:
        """Seconds to wait before the next attempt: from half the bound to the bound."""
        delay = self._bound * (1 + self._random()) / 2
        self._bound = min(self._bound * 2, MAX_DELAY)
        return delay

    def reset(self) -> None:
        """It worked: begin anew next time."""
        self._bound = FIRST_DELAY
