"""The padding of the last day, which outlives the client's process: the day's budget counts it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

from halftunnel_vpn.client.client_shaping import ClientShaping
from halftunnel_vpn.session.padding_budget import SLICES, PaddingBudget


class PaddingMemory:
    """What :class:`RememberedFile` keeps of the padding of both directions. ``clock`` is monotonic."""

    def __init__(self, shaping: ClientShaping, clock: Callable[[], float]) -> None:
        self._shaping = shaping
        self._clock = clock

    @property
    def changes(self) -> int:
        """Bytes of padding so far; 0 without a budget, which needs no memory."""
        if not self._shaping.has_budget:
            return 0
        return sum(budget.padding_counted for budget in self._budgets().values())

    def load(self, stored: object, wall: float) -> int:
        """Count what an earlier process has sent; return the number of invalid entries."""
        refused = 0
        now = self._clock()
        for name, budget in self._budgets().items():
            entries = stored.get(name, []) if isinstance(stored, Mapping) else None
            if not isinstance(entries, list) or len(entries) > SLICES:
                refused += 1
                continue
            for entry in entries:
                match entry:
                    case [int() | float() as at, int(padding)] if padding >= 0 and math.isfinite(at):
                        # a clock that was set back does not renew the budget
                        budget.add_earlier(max(wall - at, 0.0), padding, now)
                    case _:
                        refused += 1
        return refused

    def export(self) -> dict[str, list[tuple[int, int]]]:
        """Return when padding was sent, in Unix time, and how much, by direction."""
        now, wall = self._clock(), time.time()
        return {
            name: [(int(wall - age), padding) for age, padding in budget.day(now)]
            for name, budget in self._budgets().items()
        }

    def _budgets(self) -> dict[str, PaddingBudget]:
        return self._shaping.day_budgets(self._clock())
