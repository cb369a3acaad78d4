"""Waiting between attempts: exponential, with full jitter."""

from __future__ import annotations

from collections.abc import Callable

FIRST_DELAY = 1.0
"""Seconds: the bound of the first pause."""

MAX_DELAY = 60.0
"""Seconds: the bound of every later pause."""

MIN_DELAY = 0.1
"""Seconds that every pause has at least: an attempt that fails at once must not become a busy loop."""


class Backoff:
    """The pauses of one thing that is tried again and again. ``random`` gives numbers in [0, 1)."""

    __slots__ = ("_bound", "_random")

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._bound = FIRST_DELAY

    def next_delay(self) -> float:
        """Seconds to wait before the next attempt."""
        delay = max(MIN_DELAY, self._bound * self._random())
        self._bound = min(self._bound * 2, MAX_DELAY)
        return delay

    def reset(self) -> None:
        """It worked: begin anew next time."""
        self._bound = FIRST_DELAY
