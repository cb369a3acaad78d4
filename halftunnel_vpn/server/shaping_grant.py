"""The exit's side of shaping: what a session gets, by what was granted to its client."""

from __future__ import annotations

import logging
from collections.abc import Callable

from halftunnel_vpn.protocol.shaping_terms import ShapingMode, ShapingTerms
from halftunnel_vpn.session.clock_parameters import SEED_LENGTH, STRONG_DELAY, TICK, downstream_clock
from halftunnel_vpn.session.leg_lottery import BatchedWeightedRandom
from halftunnel_vpn.session.legs import LegPolicy
from halftunnel_vpn.session.padding_budget import PaddingBudget
from halftunnel_vpn.session.shaping_plan import ShapingPlan

MANY = 24
"""Downstream clocks beside which a further one has twice the tick, with records of twice the size."""

log = logging.getLogger(__name__)


def leg_policy(terms: ShapingTerms | None, random: Callable[[int], bytes]) -> LegPolicy | None:
    """Return what chooses the downstream leg of each record; None: as without shaping."""
    if terms is None or terms.mode is ShapingMode.OFF or not terms.spreads:
        return None
    return BatchedWeightedRandom(random)


def receipt_interval(terms: ShapingTerms | None) -> float:
    """Return the seconds between two records of the client's, in which receipts ride; 0: no clock."""
    return TICK if terms is not None and terms.mode is not ShapingMode.OFF else 0.0


def shaping_plan(
    terms: ShapingTerms | None,
    random: Callable[[int], bytes],
    shaped: Callable[[], int] = lambda: 0,
    delay: float = STRONG_DELAY,
) -> ShapingPlan | None:
    """Return what the downstream is shaped with; None: not at all.

    ``shaped`` counts the other sessions that are; it is called only if there is a plan. ``delay`` is how many
    seconds more may wait than fits the clock until it counts as a bulk transfer.
    """
    if terms is None or terms.mode is not ShapingMode.STRONG:
        return None
    tick = TICK
    others = shaped()
    if others >= MANY:
        tick = 2 * TICK
        log.info("the clock of a new session is half as fast: %d others run already", others)
    clock = downstream_clock(random(SEED_LENGTH), bulk_after=delay, rate=terms.rate, tick=tick)
    budget = PaddingBudget(overhead=terms.overhead, budget=terms.budget)
    return ShapingPlan(clock, budget, lambda sentence: log.info("%s", sentence))
