"""When a preferred exit that was lost is used again: after it has answered for a while. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

MAX_PROBE_INTERVAL: Final = 20.0
"""Seconds between two probes of the preferred exits, at most."""

MIN_PROBE_INTERVAL: Final = 0.5
"""Seconds between them, at least."""

PROBES: Final = 3
"""Answers in a row that are needed, at least."""

STABLE: Final = 600.0
"""Seconds for which an exit must last after a switch back; one that does not must answer longer next time."""

MAX_REQUIRED: Final = 3600.0
"""Seconds for which it must then have answered, at most. Each early loss doubles the time."""


class SwitchBack:
    """Counts the answers of the preferred exits. ``after``: seconds for which one must have answered."""

    def __init__(self, after: float) -> None:
        self._after = after
        self._required = after
        self._answers: dict[str, tuple[float, int]] = {}
        """When the answers in a row began, and their number; the exits of the profile bound it."""
        self._switched: tuple[str, float] | None = None

    @property
    def interval(self) -> float:
        """Seconds between two probes."""
        return min(MAX_PROBE_INTERVAL, max(MIN_PROBE_INTERVAL, self._after / PROBES))

    @property
    def required(self) -> float:
        """Seconds for which an exit must have answered now."""
        return self._required

    def answered(self, name: str, now: float) -> None:
        """Note an answer."""
        since, count = self._answers.get(name, (now, 0))
        self._answers[name] = since, count + 1

    def failed(self, name: str) -> None:
        """Note a probe without an answer: the exit begins again."""
        self._answers.pop(name, None)

    def due(self, preferred: Sequence[str], now: float) -> str | None:
        """Return the exit to switch back to, the first of ``preferred`` that has answered for long enough."""
        for name in preferred:
            since, count = self._answers.get(name, (now, 0))
            if count >= PROBES and now - since >= self._required:
                return name
        return None

    def switched(self, name: str, now: float) -> None:
        """Note a switch back."""
        self._switched = name, now
        self._answers.clear()

    def lost(self, name: str, now: float) -> None:
        """Note that the exit in use was lost."""
        self._answers.clear()
        switched, self._switched = self._switched, None
        if switched is None or switched[0] != name:
            return
        if now - switched[1] < STABLE:
            self._required = min(2 * self._required, max(self._after, MAX_REQUIRED))
        else:
            self._required = self._after
