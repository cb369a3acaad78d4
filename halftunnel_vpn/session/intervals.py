"""How long a leg may be silent before a middlebox cuts it: learnt per domain.

Idle limits of proxies and NATs differ from ten seconds to many minutes, and are not announced. So each
domain begins with a careful interval; after some silences of that length that a leg has survived, the next
longer one is tried; after a cut at a silence that was never survived before, the interval goes back below it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

FIRST_INTERVAL: Final = 8.0
"""Seconds: the first interval of a domain."""

LONGEST_INTERVAL: Final = 60.0
"""Seconds: the longest interval; a dead idle leg is found within one interval."""

SHORTEST_INTERVAL: Final = 2.0
"""Seconds: the shortest interval."""

SURVIVALS: Final = 3
"""Silences survived before a longer interval is tried."""

GROWTH: Final = 1.5
"""Factor from one interval to the next."""

JITTER_SHARE: Final = 0.7
"""Share of an interval that a silence must last to count for that interval."""

BACK_OFF: Final = 0.7
"""Share of a silence that ended with a cut which is tried next."""

SAME: Final = 0.25
"""Difference, as a share, up to which two silences count as about the same."""

BAD_FOR: Final = 7 * 86400.0
"""Seconds for which a cut is remembered, since paths change."""

MAX_DOMAINS: Final = 64
"""Domains remembered; the oldest is forgotten first."""


class Learnt:
    """What is known of one domain. Seconds; ``survived`` and ``cut`` are silences, 0 for none."""

    __slots__ = ("cut", "cut_at", "interval", "streak", "survived", "suspect")

    def __init__(self, interval: float, survived: float = 0.0, cut: float = 0.0, cut_at: float = 0.0) -> None:
        self.interval = interval
        self.survived = survived
        self.cut = cut
        self.cut_at = cut_at
        self.streak = 0
        self.suspect = 0.0


class IntervalTable:
    """Keepalive intervals by domain. ``first`` is where each begins, ``longest`` where growing ends."""

    def __init__(self, first: float = FIRST_INTERVAL, longest: float = LONGEST_INTERVAL) -> None:
        self._first = first
        self._longest = max(first, longest)
        self._shortest = min(first, SHORTEST_INTERVAL)
        self._domains: dict[str, Learnt] = {}
        self.changes = 0
        """Rises with each change worth saving."""

    def interval(self, domain: str) -> float:
        """Return the seconds between two keepalives on a leg to ``domain``."""
        learnt = self._domains.get(domain)
        return self._first if learnt is None else learnt.interval

    def survived(self, domain: str, silence: float) -> None:
        """Record that a leg answered after ``silence`` seconds of silence."""
        learnt = self._of(domain)
        if silence > learnt.survived:
            learnt.survived = silence
        if silence < learnt.interval * JITTER_SHARE:
            return
        learnt.suspect = 0.0
        learnt.streak += 1
        if learnt.streak < SURVIVALS:
            return
        learnt.streak = 0
        longer = min(learnt.interval * GROWTH, self._longest)
        if learnt.cut:
            longer = min(longer, learnt.cut * BACK_OFF)
        if longer > learnt.interval:
            learnt.interval = longer
            self.changes += 1

    def cut(self, domain: str, silence: float, wall: float) -> None:
        """Record that a leg was lost after ``silence`` seconds of silence, at ``wall`` seconds since 1970.

        A silence that was survived before, or is much shorter than the interval, proves nothing by itself;
        two similar cuts in a row do.
        """
        learnt = self._of(domain)
        learnt.streak = 0
        if silence < SHORTEST_INTERVAL:
            return
        if silence <= learnt.survived or silence < learnt.interval * JITTER_SHARE:
            before, learnt.suspect = learnt.suspect, silence
            if abs(before - silence) > SAME * silence:
                return
        learnt.suspect = 0.0
        learnt.cut, learnt.cut_at = silence, wall
        learnt.survived = min(learnt.survived, silence * BACK_OFF)
        learnt.interval = max(self._shortest, min(learnt.interval, silence * BACK_OFF))
        self.changes += 1

    def export(self) -> dict[str, dict[str, float]]:
        """Return the table as plain data."""
        return {
            domain: {"interval": one.interval, "survived": one.survived, "cut": one.cut, "cut_at": one.cut_at}
            for domain, one in self._domains.items()
        }

    def load(self, stored: object, wall: float) -> int:
        """Load what :meth:`export` returned; return the number of invalid entries, which are ignored."""
        refused = 0
        items = list(stored.items())[-MAX_DOMAINS:] if isinstance(stored, Mapping) else []
        for domain, entry in items:
            numbers = _numbers(entry)
            if not isinstance(domain, str) or numbers is None:
                refused += 1
                continue
            interval, survived, cut, cut_at = numbers
            if wall - cut_at > BAD_FOR or cut_at > wall:
                cut = cut_at = 0.0
            interval = min(max(interval, self._shortest), self._longest)
            self._domains[domain] = Learnt(interval, survived, cut, cut_at)
        return refused

    def _of(self, domain: str) -> Learnt:
        learnt = self._domains.get(domain)
        if learnt is None:
            if len(self._domains) >= MAX_DOMAINS:
                del self._domains[next(iter(self._domains))]
            learnt = self._domains[domain] = Learnt(self._first)
        return learnt


def _numbers(entry: object) -> tuple[float, float, float, float] | None:
    if not isinstance(entry, Mapping):
        return None
    found = [entry.get(key, 0.0) for key in ("interval", "survived", "cut", "cut_at")]
    if not all(isinstance(one, int | float) and 0 <= one < 1e12 for one in found):
        return None
    interval, survived, cut, cut_at = map(float, found)
    return (interval, survived, cut, cut_at) if interval else None
