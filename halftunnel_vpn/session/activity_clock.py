"""When a clock runs: from the first data of an activity to a stop that says as little as possible of it."""

from __future__ import annotations

from halftunnel_vpn.session.clock_parameters import MAX_STOP_GAP, STEADY, ClockParameters, RampStep

OUTCOMES = 12
"""Stops that are distinguished. The last one stands for all activities of a minute and more."""


class ActivityClock:
    """One activity after another of one direction. Times are seconds."""

    __slots__ = (
        "_gap",
        "_highest_rate",
        "_last_data",
        "_parameters",
        "_started",
        "activities",
        "index",
        "is_whole",
        "next_check",
        "running",
        "stopped_at",
    )

    def __init__(self, parameters: ClockParameters) -> None:
        self._parameters = parameters
        # Whether an activity goes on.
        self.running = False
        self._highest_rate = parameters.highest_rate
        # Whether records are the whole ones and not the trickle's.
        self.is_whole = True
        # When it may stop next, and when the budget is checked next.
        self.next_check = 0.0
        # How many times it could have stopped and did not.
        self.index = 0
        # How many activities ended at which index.
        self.stopped_at = [0] * OUTCOMES
        self.activities = 0
        self._started = self._last_data = 0.0
        self._gap = 0.0

    def begin(self, now: float) -> None:
        """Data wait and no activity goes on, or a greater one replaces it."""
        self.running = True
        self.activities += 1
        self.index = 0
        self._started = self._last_data = now
        self._gap = self._parameters.first_stop
        self.next_check = now + self._gap

    def data(self, now: float) -> None:
        """A record with data has left."""
        self._last_data = now

    def is_over(self, now: float, hold: float) -> bool:
        """Whether nothing was active for ``hold`` seconds; a stop at a fixed time is asked for by itself."""
        return now - self._last_data >= hold

    def passed(self, now: float) -> float:
        """Return the seconds since the start of the activity."""
        return now - self._started

    def pace(self, now: float) -> RampStep:
        """Return how many records leave now, and how many ticks later the next ones do."""
        ramp = self._parameters.ramp
        if self.is_whole and ramp:
            return self._parameters.pace_at(now - self._started)
        return STEADY

    @property
    def highest_rate(self) -> float:
        """Bytes a second at most."""
        return self._highest_rate if self.is_whole else self._parameters.trickle / self._parameters.tick

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
