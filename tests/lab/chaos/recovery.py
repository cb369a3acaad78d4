"""From kills and pauses to figures: how long each death of a leg was felt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from lab.chaos.legs import Death, Way
from lab.chaos.transfers import Pause

DRAIN: Final = 1.0
"""Seconds for which bytes may still arrive that had left before a leg died."""


@dataclass(frozen=True, slots=True)
class Kill:
    """One death of a leg; ``at`` is a monotonic reading, ``legs`` how many its direction had."""

    at: float
    way: Way
    death: Death
    legs: int = 1


@dataclass(slots=True)
class Recoveries:
    """Seconds from each kill until bytes arrived again, 0.0 when the flow did not pause."""

    by_death: dict[Death, list[float]] = field(default_factory=lambda: {death: [] for death in Death})

    @property
    def all(self) -> list[float]:
        """Every value, in no order."""
        return [seconds for values in self.by_death.values() for seconds in values]

    def add(self, kills: Sequence[Kill], way: Way, pauses: Sequence[Pause], until: float) -> None:
        """Take in the kills of one direction, with the pauses of its flow; ``until`` is when that ended.

        A pause belongs to the kill when it begins within DRAIN of it, and before the next one of the same
        direction: until then what was in the buffers of the road still arrives.
        """
        own = sorted((kill for kill in kills if kill.way is way), key=lambda kill: kill.at)
        for number, kill in enumerate(own):
            end = own[number + 1].at if number + 1 < len(own) else until
            end = min(end, kill.at + DRAIN)
            felt = [pause.ended for pause in pauses if kill.at < pause.ended and pause.began < end]
            self.by_death[kill.death].append(max(felt, default=kill.at) - kill.at)


def worst_pause(pauses: Sequence[Pause]) -> float:
    """Seconds of the longest pause, 0.0 without any."""
    return max((pause.seconds for pause in pauses), default=0.0)
