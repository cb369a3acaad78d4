"""Estimates a leg's path from receipts: the rate that it delivers, and the seconds of queue in it.

The peer's clock gives the arrival time of a record, so neither the path nor the delay of the receipts counts.
The excess of the one-way time over the least one is the queue. Both contain the difference of the clocks.
"""

from __future__ import annotations

from collections import deque
from typing import Final

STEP: Final = 0.05
"""Seconds of a step, at least; a round trip where that is longer."""

RATE_STEPS: Final = 16
"""Steps over which a rate is averaged, at most: receipts come a little early or late."""

LEAST_MEMORY: Final = 10.0
"""Seconds for which a least one-way time is used."""

NEAR: Final = 0.001
"""Seconds within which a one-way time is seen as the least."""

PAUSE: Final = 2.0
"""Seconds without a receipt after which a step begins again."""

EVEN: Final = 1.25
"""Factor by which a rate may differ from the one before, if it has been found: a start doubles it."""

NEVER: Final = 1e18
_WRAP: Final = (1 << 32) / 1e6
# Seconds after which the peer's clock begins again.


class PathEstimate:
    """The estimates of one leg's path. Times are seconds of our own clock, rates bytes a second."""

    __slots__ = (
        "_history",
        "_least_before",
        "_least_now",
        "_least_since",
        "_least_step",
        "_offset",
        "_step_at",
        "is_even",
        "last_rate",
        "queue",
        "rate",
        "seen_at",
        "span",
        "steps",
        "was_idle",
    )

    def __init__(self) -> None:
        # What the path delivers, on average; 0 until known. And what it delivered in the last step.
        self.rate = self.last_rate = 0.0
        # Whether the rate has hardly changed in the time that it is averaged over.
        self.is_even = False
        # Seconds of queue in the last step: the least of them.
        self.queue = 0.0
        # Whether there was a pause, or too little to send, since this was cleared.
        self.was_idle = False
        # Steps in a row that were busy, and the seconds that they took.
        self.steps = 0
        self.span = 0.0
        # The peer's clock and the bytes delivered at the end of the last steps, all of them busy.
        self._history: deque[tuple[float, int]] = deque(maxlen=RATE_STEPS + 1)
        # The first one-way time, which contains the difference of the clocks. Others are relative to it.
        self._offset: float | None = None
        # The least one-way time of this half of LEAST_MEMORY, of the one before, and of this step.
        self._least_now = self._least_before = self._least_step = NEVER
        # When this half began, when the least time was seen last, and when this step began.
        self._least_since = self.seen_at = self._step_at = -NEVER

    def add(
        self,
        departed: float,
        arrived: int,
        round_trip: float,
        delivered: int,
        is_busy: bool,
        now: float,
        *,
        over: float,
        target: float,
    ) -> bool:
        """A record that ``departed`` has ``arrived``; return whether a step has ended and the rate is known.

        The rate is averaged over the last ``over`` seconds, if there are so many. More than ``target``
        seconds of queue keep the path busy, even when there is nothing more to send.
        """
        if self._offset is None:
            self._offset = arrived / 1e6 - departed
        # by the first time: seconds of a clock that never wraps
        one_way = (arrived / 1e6 - departed - self._offset + _WRAP / 2) % _WRAP - _WRAP / 2
        peer_now = departed + one_way
        self._remember(one_way, now)
        history = self._history
        least = min(self._least_now, self._least_before)
        is_busy = is_busy or one_way > least + target
        is_pause = now - self._step_at > PAUSE + round_trip
        if not is_busy or not history or is_pause:
            self.was_idle = self.was_idle or is_pause or not is_busy
            self.forget()
            if is_busy:
                history.append((peer_now, delivered))
            self._begin_step(now)
            return False
        self._least_step = min(self._least_step, one_way)
        if now - self._step_at < max(STEP, round_trip):
            return False
        before_now, before_delivered = history[-1]
        history.append((peer_now, delivered))
        self.steps = len(history) - 1
        self.span = peer_now - history[0][0]
        if peer_now > before_now:
            self.last_rate = (delivered - before_delivered) / (peer_now - before_now)
        self.queue = self._least_step - least
        self._begin_step(now)
        return self._average(peer_now, delivered, over)

    def forget(self) -> None:
        """Forget what was delivered: it says nothing about what follows."""
        self._history.clear()
        self.steps = 0
        self.span = 0.0
        self.is_even = False

    def _begin_step(self, now: float) -> None:
        self._step_at = now
        self._least_step = NEVER

    def _average(self, peer_now: float, delivered: int, over: float) -> bool:
        history = self._history
        first = 0
        while first < len(history) - 2 and peer_now - history[first + 1][0] >= over:
            first += 1
        since, before = history[first]
        if peer_now - since < over / 2:
            self.is_even = False
            return self.rate > 0
        self.rate = (delivered - before) / (peer_now - since)
        self.is_even = self._is_even(min(first, len(history) - 3))
        return True

    def _is_even(self, first: int) -> bool:
        """Return whether the rates of the two halves of the history from ``first`` on are about the same."""
        history = self._history
        if first < 0:
            return False
        (start, before), (end, after) = history[first], history[-1]
        middle, between = history[(first + len(history)) // 2]
        if not start < middle < end:
            return False
        early, late = (between - before) / (middle - start), (after - between) / (end - middle)
        return early < late * EVEN and late < early * EVEN

    def _remember(self, one_way: float, now: float) -> None:
        if now - self._least_since > LEAST_MEMORY / 2:
            self._least_before, self._least_now = self._least_now, one_way
            self._least_since = now
        elif one_way < self._least_now:
            self._least_now = one_way
        if one_way <= min(self._least_now, self._least_before) + NEAR:
            self.seen_at = now
