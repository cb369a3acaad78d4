"""When a clock runs: from the first data of an activity to a stop that says as little as possible of it."""

from __future__ import annotations

from halftunnel_vpn.session.clock_parameters import MAX_STOP_GAP, STEADY, ClockParameters
from halftunnel_vpn.timers import GRANULARITY

OUTCOMES = 12
"""Stops that are distinguished. The last one stands for all activities of a minute and more."""


class ActivityClock:
    """One activity after another of one direction. Times are seconds."""

    __slots__ = (
        "_gap",
        "_parameters",
        "_started",
        "activities",
        "highest_rate",
        "index",
        "is_whole",
        "last_data",
        "next_check",
        "pace_until",
        "records",
        "running",
        "steps",
        "stopped_at",
    )

    def __init__(self, parameters: ClockParameters) -> None:
        self._parameters = parameters
        # Whether an activity goes on.
        self.running = False
        # Bytes a second at most.
        self.highest_rate = 0.0
        # The pace: records that leave together, steps of the timer wheel to the next ones, until when.
        self.records = self.steps = 1
        self.pace_until = 0.0
        # Whether records are the whole ones and not the trickle's.
        self.is_whole = True
        # When it may stop next, and when the budget is checked next.
        self.next_check = 0.0
        # How many times it could have stopped and did not.
        self.index = 0
        # How many activities ended at which index.
        self.stopped_at = [0] * OUTCOMES
        self.activities = 0
        self._started = 0.0
        # When a record with data has left last.
        self.last_data = 0.0
        self._gap = 0.0

    def begin(self, now: float) -> None:
        """Data wait and no activity goes on, or a greater one replaces it."""
        self.running = True
        self.activities += 1
        self.index = 0
        self._started = self.last_data = now
        parameters = self._parameters
        self.highest_rate = parameters.highest_rate if self.is_whole else parameters.trickle / parameters.tick
        self.set_pace(now)
        self._gap = self._parameters.first_stop
        self.next_check = now + self._gap

    def passed(self, now: float) -> float:
        """Return the seconds since the start of the activity."""
        return now - self._started

    def set_pace(self, now: float) -> None:
        """Set the pace to that of ``now``; it is due at ``pace_until``."""
        parameters = self._parameters
        pace = parameters.pace_at(now - self._started) if self.is_whole else STEADY
        self.records = pace.records
        self.steps = round(parameters.tick * pace.ticks / GRANULARITY)
        self.pace_until = self._started + pace.until

    def bytes_between(self, start: float, end: float) -> float:
        """Return the bytes of the records from ``start`` to ``end``, in seconds since the start."""
        parameters = self._parameters
        if self.is_whole:
            return parameters.bytes_between(start, end)
        return parameters.trickle / parameters.tick * (end - start)

    @property
    def length(self) -> float:
        """Seconds from the start of the activity to its next check."""
        return self.next_check - self._started

    def advance(self, now: float) -> None:
        """A check has passed and the activity goes on: set the next one."""
        while self.next_check <= now:
            self.index += 1
            length = self.length
            self._gap = min(length * self._parameters.stop_growth - length, MAX_STOP_GAP)
            self.next_check += self._gap

    def gap_after(self, now: float) -> float:
        """Return the seconds from the check that is due now to the one behind it."""
        length = max(self.length, now - self._started)
        return min(length * self._parameters.stop_growth - length, MAX_STOP_GAP)

    def stop(self) -> None:
        """The activity is over."""
        self.running = False
        self.stopped_at[min(self.index, OUTCOMES - 1)] += 1
