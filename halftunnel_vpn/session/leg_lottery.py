"""Batched weighted random: which leg carries the next records is drawn by lot (TrafficSliver, CCS 2020)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from halftunnel_vpn.session.legs import SessionLeg

MIN_BATCH: Final = 6
MAX_BATCH: Final = 14
"""Records in a row on one leg, drawn by lot between these two."""

PAUSE: Final = 0.5
"""Seconds without a record after which the weights are drawn again: another activity begins."""

MAX_WEIGHTS: Final = 128
"""Weights that are remembered; beyond it all are drawn again."""

_BYTES: Final = 4


class BatchedWeightedRandom:
    """A leg policy: batches of records, each on a leg drawn by weights that hold for one activity.

    The weights of an activity are uniform over all ways to divide it (a Dirichlet distribution, alpha 1).
    They belong to a leg's domain where this end knows it (client), so that they outlive its connection.
    """

    __slots__ = ("_last", "_left", "_leg", "_random", "_weights")

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._random = random
        self._weights: dict[str, float] = {}
        self._leg: SessionLeg | None = None
        self._left = 0
        self._last = -PAUSE

    def choose(self, writable: Sequence[SessionLeg], now: float) -> SessionLeg:
        """The leg of the batch; another batch begins when that is over or its leg cannot be written."""
        if now - self._last >= PAUSE:
            self._weights.clear()
            self._left = 0
        self._last = now
        leg = self._leg
        if self._left > 0 and leg is not None and leg in writable:
            self._left -= 1
            return leg
        leg = self._leg = self._draw(writable)
        self._left = MIN_BATCH + int(self._uniform() * (MAX_BATCH - MIN_BATCH + 1)) - 1
        return leg

    def waits(self, leg: SessionLeg, now: float) -> bool:
        """Return False: the other legs carry more."""
        return False

    def _draw(self, legs: Sequence[SessionLeg]) -> SessionLeg:
        weights = [self._weight(leg) for leg in legs]
        place = self._uniform() * sum(weights)
        for leg, weight in zip(legs, weights, strict=True):
            place -= weight
            if place < 0:
                return leg
        return legs[-1]

    def _weight(self, leg: SessionLeg) -> float:
        """Weights of a Dirichlet distribution are exponential variables, divided by their sum."""
        key = leg.domain or str(leg.number)
        weight = self._weights.get(key)
        if weight is None:
            if len(self._weights) >= MAX_WEIGHTS:
                self._weights.clear()
            weight = self._weights[key] = -math.log(1 - self._uniform())
        return weight

    def _uniform(self) -> float:
        """Return a number in [0, 1)."""
        return int.from_bytes(self._random(_BYTES), "big") / (1 << 8 * _BYTES)
