"""How much padding a direction may send: a part of the other bytes in an hour, and bytes in a day."""

from __future__ import annotations

from typing import Final

HOUR: Final = 3600.0
DAY: Final = 86400.0

SLICES: Final = 60
"""Parts of an hour, and of a day, that are forgotten one by one."""

ALLOWANCE: Final = 8 * 1024 * 1024
"""Bytes of padding that an hour may have whatever else it carries: an activity begins with padding."""


class _Window:
    """Sums of the last ``span`` seconds, of padding and of other bytes."""

    __slots__ = ("_other", "_padding", "_slice", "_span", "other", "padding")

    def __init__(self, span: float) -> None:
        self._span = span
        self._padding = [0] * SLICES
        self._other = [0] * SLICES
        self._slice = -1
        self.padding = self.other = 0

    def move(self, now: float) -> None:
        """Forget what is older than the span."""
        current = int(now * SLICES / self._span)
        if self._slice < 0:
            self._slice = current
        for passed in range(max(self._slice + 1, current - SLICES + 1), current + 1):
            place = passed % SLICES
            self.padding -= self._padding[place]
            self.other -= self._other[place]
            self._padding[place] = self._other[place] = 0
        self._slice = max(self._slice, current)

    def add(self, padding: int, other: int) -> None:
        """Count into the slice of now."""
        place = self._slice % SLICES
        self._padding[place] += padding
        self._other[place] += other
        self.padding += padding
        self.other += other

    def parts(self, now: float) -> list[tuple[float, int]]:
        """Return how long ago padding was sent, at least, and how much, for each part of the span."""
        self.move(now)
        length = self._span / SLICES
        found = [(part * length, self._padding[(self._slice - part) % SLICES]) for part in range(SLICES)]
        return [(age, padding) for age, padding in found if padding]

    def add_earlier(self, age: float, padding: int, now: float) -> None:
        """Count padding that was sent ``age`` seconds ago."""
        self.move(now)
        part = int(age * SLICES / self._span)
        if 0 <= part < SLICES:
            self._padding[(self._slice - part) % SLICES] += padding
            self.padding += padding


class PaddingBudget:
    """The bounds of one direction; 0 is none. ``overhead`` is in hundredths of the other bytes of an hour."""

    __slots__ = ("_day", "_hour", "budget", "overhead", "padding_counted")

    def __init__(self, *, overhead: int = 0, budget: int = 0) -> None:
        self.overhead = overhead
        self.budget = budget
        # Bytes of padding since this was made.
        self.padding_counted = 0
        self._hour = _Window(HOUR)
        self._day = _Window(DAY)

    def spent(self, padding: int, other: int, now: float) -> None:
        """Count the bytes of a record."""
        self._hour.move(now)
        self._day.move(now)
        self._hour.add(padding, other)
        self._day.add(padding, other)
        self.padding_counted += padding

    def reason_against(self, more: float, now: float) -> str:
        """Return which bound ``more`` bytes of padding would break: ``overhead``, ``budget`` or neither."""
        self._hour.move(now)
        self._day.move(now)
        if self.budget and self._day.padding + more > self.budget:
            return "budget"
        if self.overhead:
            allowed = self._hour.other * self.overhead / 100 + ALLOWANCE
            if self._hour.padding + more > allowed:
                return "overhead"
        return ""

    def day(self, now: float) -> list[tuple[float, int]]:
        """Return the padding of the last day: (seconds ago at least, bytes), the newest first."""
        return self._day.parts(now)

    def add_earlier(self, age: float, padding: int, now: float) -> None:
        """Count into the day what an earlier process has sent ``age`` seconds ago."""
        self._day.add_earlier(age, padding, now)

    @property
    def padding_today(self) -> int:
        """Bytes of padding in the last day, as last counted."""
        return self._day.padding

    @property
    def hour(self) -> tuple[int, int]:
        """Bytes of padding and of everything else in the last hour, as last counted."""
        return self._hour.padding, self._hour.other
