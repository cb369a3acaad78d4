"""Which exit the next session is to use: by priority, by round trip, or one that was named. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

MARGIN: Final = 0.010
"""Seconds by which an exit must be faster than the one in use, or than one of a better priority,"""

MARGIN_SHARE: Final = 0.2
"""and the share of the lowest round trip; the larger one counts. Less is noise, and a change ends flows."""


@dataclass(frozen=True, slots=True)
class ExitChoice:
    """What the user wants: the order of priority (the default), the ``fastest`` exit, or the one of ``name``.

    A named exit is never left for another one.
    """

    name: str | None = None
    fastest: bool = False


BY_PRIORITY: Final = ExitChoice()


@dataclass(slots=True)
class Knowledge:
    """What is known about one exit."""

    round_trip: float | None = None
    """Seconds, when last measured."""
    problem: str | None = None
    """Why it could not be reached the last time, in one sentence; None if it could, or was not tried."""
    was_tried: bool = False


@dataclass(slots=True)
class ExitRanking:
    """The ``names`` of the exits in order of priority, what is known about each, and what is wanted."""

    names: Sequence[str]
    choice: ExitChoice = BY_PRIORITY
    in_use: str | None = None
    """The exit of the present session, or of the last one."""
    known: dict[str, Knowledge] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.known = {name: Knowledge() for name in self.names}

    def answered(self, name: str, round_trip: float | None = None) -> None:
        """Note that an exit was reached; ``round_trip`` None: not measured."""
        found = self.known[name]
        found.was_tried, found.problem = True, None
        if round_trip is not None:
            found.round_trip = round_trip

    def failed(self, name: str, problem: str) -> None:
        """Note that an exit was not reached."""
        found = self.known[name]
        found.was_tried, found.problem = True, problem

    def wanted(self) -> list[str]:
        """Return the exits that may be used, the best first."""
        if self.choice.name is not None:
            return [self.choice.name]
        return self._by_round_trip() if self.choice.fastest else list(self.names)

    def for_new_session(self, *, is_own_last: bool = False) -> list[str]:
        """Return the exits in the order in which a lost session is replaced.

        Its own exit comes first, or last: it ends sessions at once.
        """
        wanted = self.wanted()
        if self.in_use in wanted:
            wanted.remove(self.in_use)
            wanted.insert(len(wanted) if is_own_last else 0, self.in_use)
        return wanted

    def others(self) -> list[str]:
        """Return the exits that may take the place of the one in use."""
        return [name for name in self.wanted() if name != self.in_use]

    def preferred(self) -> list[str]:
        """Return the exits of a better priority than the one in use; none unless priority decides."""
        if self.choice != BY_PRIORITY or self.in_use not in self.names:
            return []
        return list(self.names[: self.names.index(self.in_use)])

    def _by_round_trip(self) -> list[str]:
        measured = {
            name: known.round_trip
            for name, known in self.known.items()
            if known.round_trip is not None and known.problem is None
        }
        if not measured:
            return list(self.names)
        lowest = min(measured.values())
        limit = lowest + max(MARGIN, MARGIN_SHARE * lowest)

        def rank(name: str) -> tuple[float, ...]:
            round_trip = measured.get(name)
            if round_trip is None:
                return (2, self.names.index(name))
            if round_trip > limit:
                return (1, round_trip)
            return (0, float(name != self.in_use), self.names.index(name))

        return sorted(self.names, key=rank)
