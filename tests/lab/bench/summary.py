"""Numbers out of numbers: percentiles, medians with their spread, ratios. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lab.bench.rows import Better


@dataclass(frozen=True, slots=True)
class Summary:
    """What the rounds of one row and one peer came to."""

    median: float
    low: float
    high: float
    rounds: int

    @property
    def spread(self) -> float:
        """Half the distance between the best and the worst round, as a part of the median."""
        return (self.high - self.low) / 2 / self.median if self.median else 0.0


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` (0 to 1) of the values lie, between neighbours in proportion.

    Raises ValueError when there are none.
    """
    if not values:
        raise ValueError("a percentile of nothing")
    ordered = sorted(values)
    place = (len(ordered) - 1) * share
    below, above = math.floor(place), math.ceil(place)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def summarise(values: Sequence[float]) -> Summary:
    """Median, least and greatest. Raises ValueError when there are no values."""
    return Summary(percentile(values, 0.5), min(values), max(values), len(values))


def best(medians: Mapping[str, float], better: Better) -> str | None:
    """The name with the best median; None when there are none."""
    if not medians:
        return None
    choose = max if better == "higher" else min
    return choose(medians, key=lambda name: medians[name])


def ratio(one: float, other: float) -> float | None:
    """``one`` in terms of ``other``; None when that is zero."""
    return one / other if other else None


def beats(one: float, other: float, better: Better) -> bool:
    """Whether ``one`` is at least as good as ``other``."""
    return one >= other if better == "higher" else one <= other


def significant(value: float, digits: int) -> str:
    """As text with so many significant digits, and commas between thousands: 16,700; 3.03; 0.0512."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    # Rounded first: 9.996 has one more digit before its point than it seems.
    rounded = float(f"{value:.{digits - 1}e}")
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:,.{decimals}f}"
