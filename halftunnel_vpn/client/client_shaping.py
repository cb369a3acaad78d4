"""Shaping at the client: what a profile requests, what the exit grants, and what the status reports."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Final

from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.config.exits import Spread
from halftunnel_vpn.control.status_schema import ShapingStatus
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.protocol.handshake_payloads import ExitHello
from halftunnel_vpn.protocol.shaping_terms import TAKES_PADDING, ShapingMode, ShapingTerms
from halftunnel_vpn.session.activity_clock import OUTCOMES
from halftunnel_vpn.session.clock_parameters import (
    SEED_LENGTH,
    SPLIT_DELAY,
    STRONG_DELAY,
    TICK,
    UP_CELL,
    upstream_clock,
)
from halftunnel_vpn.session.leg_lottery import BatchedWeightedRandom
from halftunnel_vpn.session.legs import LegPolicy, RoundRobin, Weighted
from halftunnel_vpn.session.padding_budget import PaddingBudget
from halftunnel_vpn.session.session import Session
from halftunnel_vpn.session.shaping_plan import ShapingPlan

MODES: Final = {"off": ShapingMode.OFF, "split": ShapingMode.SPLIT, "strong": ShapingMode.STRONG}

LONGEST: Final = 60.0
"""Seconds of the longest activity that *split* distinguishes, where each may have any length."""

log = logging.getLogger(__name__)


class ClientShaping:
    """Shaping of one client over all its sessions. ``random(n)`` returns n random bytes."""

    def __init__(self, profile: ClientProfile, counters: Counters, random: Callable[[int], bytes]) -> None:
        self._config = profile.shaping
        self._counters = counters
        self._random = random
        self._wanted = MODES[profile.shaping.mode]
        # The terms of the present session, and one sentence about why they are weaker than the wanted ones.
        self.mode = ShapingMode.OFF
        self.sentence = ""
        budget, overhead = profile.shaping.budget or 0, profile.shaping.overhead
        # Each direction has a part of the day's budget, by the rates of the clocks.
        up_share = UP_CELL / TICK / (UP_CELL / TICK + profile.shaping.rate)
        if self._wanted is not ShapingMode.STRONG:
            up_share = 1.0
        self._up_budget = PaddingBudget(overhead=overhead, budget=math.ceil(budget * up_share))
        self._down_budget = math.floor(budget * (1 - up_share))
        # The downstream's padding of a day over all sessions. The exit counts per session only.
        self._down_spent = PaddingBudget(budget=self._down_budget)
        self._counted = 0

    @property
    def has_budget(self) -> bool:
        """Whether a day's padding is bounded."""
        return bool(self._config.budget)

    def day_budgets(self, now: float) -> dict[str, PaddingBudget]:
        """Return what counts a day's padding, by direction."""
        self._count_downstream(now)
        return {"up": self._up_budget, "down": self._down_spent}

    def wish(self, now: float) -> ShapingTerms | None:
        """Return what to request from the exit for a new session; None for no shaping."""
        if self._wanted is ShapingMode.OFF:
            return None
        self._count_downstream(now)
        left = max(self._down_budget - self._down_spent.padding_today, 1) if self._down_budget else 0
        return ShapingTerms(self._wanted, True, self._config.rate, self._config.overhead, left)

    def plan(self, hello: ExitHello) -> ShapingPlan | None:
        """Return how a session is shaped, by what the exit grants; None for no shaping."""
        granted = hello.shaping.mode if hello.shaping is not None else ShapingMode.OFF
        can = hello.capabilities & TAKES_PADDING
        self.mode = min(self._wanted, granted) if can else ShapingMode.OFF
        self.sentence = ""
        if self.mode < self._wanted:
            why = "allows no more" if can else "is of a version that cannot be sent padding: update it"
            self.sentence = (
                f'Shaping is {self.mode.name.lower()} and not "{self._config.mode}": the exit {why}.'
            )
            log.warning("%s", self.sentence)
        if self.mode is ShapingMode.OFF:
            return None
        is_strong = self.mode is ShapingMode.STRONG
        clock = upstream_clock(
            self._random(SEED_LENGTH),
            stops=is_strong,
            bulk_after=self._config.delay or (STRONG_DELAY if is_strong else SPLIT_DELAY),
        )
        return ShapingPlan(clock, self._up_budget, _report)

    @property
    def receipt_interval(self) -> float:
        """Seconds between two records of the exit's clock, in which receipts ride; 0: it has none."""
        return TICK if self.mode is ShapingMode.STRONG else 0.0

    def policy(self, spread: Spread) -> LegPolicy:
        """Return the policy that chooses the upstream leg of each record, for this key of the exit."""
        if spread == "weighted":
            return Weighted()
        if self.mode is ShapingMode.OFF:
            return RoundRobin()
        return BatchedWeightedRandom(self._random)

    def status(self, session: Session | None, now: float) -> ShapingStatus:
        """Return the status. Sums are those of the session."""
        counted = self._counters.counted
        padding = counted["upstream-padding-sent"] + counted["downstream-padding-received"]
        total = counted["upstream-bytes-sent"] + counted["downstream-bytes-received"]
        shaper = session.shaper if session is not None else None
        status = ShapingStatus(
            wanted=self._config.mode,
            mode=self.mode.name.lower(),
            state="off",
            sentence=self.sentence or None,
            bits_per_activity=None,
            activities=0,
            activities_per_hour=0.0,
            padding_bytes=padding,
            overhead=padding / max(total - padding, 1) if padding else 0.0,
            escapes={},
            slots=0,
            slots_skipped=0,
        )
        if shaper is None or session is None:
            return status
        outcomes = OUTCOMES if self.mode is ShapingMode.STRONG else LONGEST / TICK
        status["state"] = shaper.state.value
        status["bits_per_activity"] = round(math.log2(outcomes), 1)
        status["activities"] = shaper.clock.activities
        elapsed = max(now - shaper.began, 60.0)
        status["activities_per_hour"] = round(shaper.clock.activities * 3600 / elapsed, 1)
        status["escapes"] = dict(shaper.writer.escapes)
        status["slots"] = shaper.writer.slots
        status["slots_skipped"] = shaper.slots_skipped
        if shaper.reason:
            status["sentence"] = f"Shaping has stopped: {shaper.explanation}."
        return status

    def _count_downstream(self, now: float) -> None:
        received = self._counters.counted["downstream-padding-received"]
        self._down_spent.spent(received - self._counted, 0, now)
        self._counted = received


def _report(sentence: str) -> None:
    log.warning("%s", sentence)
