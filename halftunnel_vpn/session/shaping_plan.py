"""What a session is shaped with, and the states in which a shaped direction can be."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final, NamedTuple

from halftunnel_vpn.session.clock_parameters import ClockParameters
from halftunnel_vpn.session.padding_budget import PaddingBudget

BULK_CHECK: Final = 0.1
"""Seconds between two checks whether a bulk transfer goes on,"""

BULK_QUIET: Final = 5
"""and checks in a row that must find little before it is over."""

RESUME_CHECK: Final = 60.0
"""Seconds between two checks whether a budget that has ended allows padding again."""

RESUME_TIME: Final = 20.0
"""Seconds of padding that it must allow by then,"""

RESUME_PART: Final = 10
"""or 1/N of the day's budget, where that is less."""


class ShaperState(enum.Enum):
    """What a direction does with what waits; see the table in shaping.py."""

    IDLE = "idle"
    CLOCK = "clock"
    BULK = "bulk"
    STEPPED_DOWN = "stepped-down"


class ShapingPlan(NamedTuple):
    """What a session is shaped with. ``notify`` is called with a sentence when that changes."""

    parameters: ClockParameters
    budget: PaddingBudget
    notify: Callable[[str], None] = lambda sentence: None
