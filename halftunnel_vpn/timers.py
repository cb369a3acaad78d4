"""One timer wheel for a whole process: thousands of deadlines, one wake-up.

Time is an argument everywhere (seconds, a monotonic clock). Deadlines are rounded up to the granularity of
the wheel, so arming, re-arming and cancelling cost one dictionary operation each.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Final

GRANULARITY: Final = 0.005
"""The most seconds by which a deadline may be late, in addition to the wake-up's own delay."""


class Timer:
    """A deadline that can be armed repeatedly. Created by :meth:`Wheel.timer`."""

    __slots__ = ("_bucket", "_callback", "_wheel")

    def __init__(self, wheel: Wheel, callback: Callable[[float], None]) -> None:
        self._wheel = wheel
        self._callback = callback
        self._bucket = -1

    @property
    def armed(self) -> bool:
        """Whether a deadline is set."""
        return self._bucket >= 0

    def arm(self, deadline: float) -> None:
        """Call the callback with ``now`` once ``deadline`` has passed. Replaces an earlier deadline."""
        # Never use the bucket that is being run: a callback that arms for now would run again and again.
        bucket = max(math.ceil(deadline / GRANULARITY), self._wheel._running + 1)
        if bucket == self._bucket:
            return
        if self._bucket >= 0:
            self._wheel._remove(self._bucket, self)
        self._bucket = bucket
        self._wheel._insert(bucket, self)

    def cancel(self) -> None:
        """Remove the deadline. Do nothing if none is set."""
        if self._bucket >= 0:
            self._wheel._remove(self._bucket, self)
            self._bucket = -1

    def _fire(self, now: float) -> None:
        self._bucket = -1
        self._callback(now)


class Wheel:
    """All timers of a process. The owner of the clock must call :meth:`run`.

    ``alarm`` is called with the new :attr:`next_deadline` whenever it becomes earlier. ``failed`` is called
    with each exception that a callback raises. Without it, :meth:`run` raises the first of them at its end.
    """

    __slots__ = ("_alarm", "_buckets", "_failed", "_order", "_running")

    def __init__(
        self,
        alarm: Callable[[float], None] | None = None,
        failed: Callable[[Exception], None] | None = None,
    ) -> None:
        self._alarm = alarm
        self._failed = failed
        self._buckets: dict[int, dict[Timer, None]] = {}
        self._order: list[int] = []
        self._running = -1

    def timer(self, callback: Callable[[float], None]) -> Timer:
        """Return a new timer that is not armed. ``callback`` receives the time of the run."""
        return Timer(self, callback)

    @property
    def next_deadline(self) -> float | None:
        """The time at which :meth:`run` should be called next; None while nothing is armed."""
        while self._order:
            bucket = self._order[0]
            if self._buckets.get(bucket):
                return bucket * GRANULARITY
            heapq.heappop(self._order)
            self._buckets.pop(bucket, None)
        return None

    def run(self, now: float) -> None:
        """Call the callback of every timer that is due. One that raises does not stop the others."""
        first: Exception | None = None
        while self._order and self._order[0] * GRANULARITY <= now:
            bucket = self._running = heapq.heappop(self._order)
            for timer in list(self._buckets.pop(bucket, ())):
                if timer._bucket == bucket:
                    try:
                        timer._fire(now)
                    except Exception as error:
                        if self._failed is not None:
                            self._failed(error)
                        elif first is None:
                            first = error
        if first is not None:
            raise first

    def _insert(self, bucket: int, timer: Timer) -> None:
        timers = self._buckets.get(bucket)
        if timers is None:
            timers = self._buckets[bucket] = {}
            heapq.heappush(self._order, bucket)
            if self._alarm is not None and self._order[0] == bucket:
                self._alarm(bucket * GRANULARITY)
        timers[timer] = None

    def _remove(self, bucket: int, timer: Timer) -> None:
        timers = self._buckets.get(bucket)
        if timers is not None and timer in timers:
            del timers[timer]
