"""The pace of a leg: as fast as its path delivers, with hardly a queue in it.

A path has one narrow place. What is sent faster than that waits in front of it, and so does everything that
comes later; what waits at the sender can be overtaken. So the sender limits its pace on slow paths. Receipts
tell what the path delivers, and when by the peer's clock: the excess of the one-way time over the least one
is the queue. These are the estimates of BBR (Cardwell and others, 2016). The pace follows the queue, as in
Copa (Arun and Balakrishnan, 2018): a little above the rate that is delivered while the queue is shorter than
its target, a little below it while it is longer.

    phase     | pace                        | leads to
    ----------+-----------------------------+--------------------------------------------------------------
    FREE      | none: TCP finds the rate    | DRAIN when a slow path has a queue
    DRAIN     | a part of the rate          | STEADY when the queue is gone, CONTESTED when it stays
    STEADY    | the rate, by the queue      | DRAIN when the queue grows or the least time is old,
              |                             | FREE when the path is fast
    CONTESTED | none: others fill the queue | FREE after a while

A path that others fill is left to TCP: a sender that yields there gets nothing.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import Final

from halftunnel_vpn.protocol.records import MAX_TRAIN

PACED_BELOW: Final = 12_500_000
"""Bytes a second from which a path is fast: what may wait there is gone in a few milliseconds."""

MIN_PACE: Final = 4_000.0
"""Bytes a second that a leg may always send, whatever a peer's clock says: half of 64 kbit/s."""

STEP: Final = 0.05
"""Seconds between two decisions, at least; a round trip where that is longer."""

RATE_STEPS: Final = 16
"""Steps over which a rate is averaged: receipts come a little early or late."""

RATE_SECONDS: Final = 0.2
"""Seconds over which a rate is averaged, where there are so many,"""

FIRST_SECONDS: Final = 0.3
"""and before there is a pace: losses stop a connection, and what follows comes at once."""

TARGET: Final = 0.006
"""Seconds of queue that keep a path busy,"""

TARGET_BYTES: Final = 2200
"""or so many bytes, where that takes longer."""

SLOPE: Final = 0.05
"""Part by which the pace exceeds the rate without any queue, and falls below it at twice the target."""

MAX_BELOW: Final = 0.12
"""Part by which it falls below the rate at most."""

RAMP: Final = 1.5
"""Factor by which the excess grows with each step without a queue: the path may have become faster."""

MAX_ABOVE: Final = 0.25
"""The excess at most."""

EMPTY: Final = 0.35
"""Part of the target that a queue is short of it, from which on there is none."""

MAX_AHEAD: Final = 1.5
"""Rates that the pace may be, at most, while the sender itself does not keep up with it."""

DRAIN_SHARE: Final = 0.75
"""Part of the rate at which a queue is drained."""

DRAINED: Final = 0.6
"""Part of the target at which a queue has been drained."""

GROWN: Final = 1.2
"""Factor by which a queue has grown while it is drained."""

PATIENCE: Final = 0.3
"""Seconds beyond the time that draining should take after which a queue is not ours."""

EXCESS: Final = 4.0
"""Targets of queue from which on it is drained."""

LEAST_AGE: Final = 5.0
"""Seconds after which a least round trip that was not seen again is looked for, by draining."""

LEAST_MEMORY: Final = 10.0
"""Seconds for which a least round trip is believed."""

NEAR: Final = 0.001
"""Seconds within which a round trip is seen as the least."""

CONTESTED_FOR: Final = 5.0
"""Seconds for which a path is left to TCP."""

LOSSY_FOR: Final = 600.0
"""Seconds for which a path that loses is left to TCP."""

TRAIN_TIME: Final = 0.003
"""Seconds that a train may take at the pace."""

MIN_TRAIN: Final = 2048
"""Bytes of a train that are always allowed."""

MAX_WAIT: Final = 0.1
"""Seconds that a record waits in the kernel at most, which holds little that is unsent."""

RATES: Final = 8
"""Rates of which the greatest counts."""

FREE_STEPS: Final = 4
"""Steps in a row with a queue after which a path without a pace is a slow one: its rate has been found."""

MIN_STEPS: Final = 3
"""Steps after draining for which the pace stays: a rate over fewer is not exact."""

IN_FLIGHT_TIME: Final = 0.08
"""Seconds beyond a round trip for which bytes are in flight: they wait in the kernel, and receipts wait."""

MIN_IN_FLIGHT: Final = 32 * 1024
"""Bytes that may always be in flight at a pace of ours."""

PAUSE: Final = 2.0
"""Seconds without a receipt after which a step begins anew."""


class Phase(enum.Enum):
    """What the pacer is doing; see the table above."""

    FREE = "free"
    DRAIN = "drain"
    STEADY = "steady"
    CONTESTED = "contested"


_NEVER: Final = 1e18
_WRAP: Final = (1 << 32) / 1e6
# Seconds after which the peer's clock begins anew.

# plain names: an attribute of an Enum class is looked up slowly
_FREE, _DRAIN, _STEADY, _CONTESTED = Phase.FREE, Phase.DRAIN, Phase.STEADY, Phase.CONTESTED


class Pacer:
    """The pace of one leg. Times are seconds of our own clock, rates bytes a second.

    The peer's clock tells when a record arrived, so neither the way of the receipts nor their delay counts.
    """

    __slots__ = (
        "_began",
        "_began_queue",
        "_departs",
        "_excess",
        "_full",
        "_history",
        "_least_before",
        "_least_now",
        "_least_since",
        "_least_step",
        "_loaded_steps",
        "_offset",
        "_rates",
        "_seen_at",
        "_step_at",
        "in_flight",
        "legs",
        "pace",
        "phase",
        "queue",
        "rate",
        "train",
        "wants_drain",
    )

    def __init__(self) -> None:
        # What the leg may send at; 0 is no limit.
        self.pace = 0.0
        # The most bytes of a train, so that what is urgent does not wait long behind it.
        self.train = MAX_TRAIN
        # The most bytes that may be in flight; 0 is no limit.
        self.in_flight = 0
        self.phase = _FREE
        # How many legs the direction has: they may share the path.
        self.legs = 1
        # What the path delivers, on average; 0 until known.
        self.rate = 0.0
        # Seconds of queue in the last step.
        self.queue = 0.0
        # Whether the other legs of the direction should drain as well, to see an empty path.
        self.wants_drain = False
        # The peer's clock and the bytes delivered at the end of the last steps, all of them busy.
        self._history: deque[tuple[float, int]] = deque(maxlen=RATE_STEPS + 1)
        # The last rates since a drain: the pace goes by the greatest, since single ones may be small.
        self._rates: deque[float] = deque(maxlen=RATES)
        # The first one-way time, which holds the difference of the clocks: others are told from it.
        self._offset: float | None = None
        # The least one-way time of this half of LEAST_MEMORY, of the one before, and of this step.
        self._least_now = self._least_before = self._least_step = _NEVER
        # When this half began, when the least time was seen last, and when this step began.
        self._least_since = self._seen_at = self._step_at = -_NEVER
        # Steps in a row with more queue than the target.
        self._loaded_steps = 0
        self._excess = SLOPE
        # What the path delivered when a queue was last seen.
        self._full = 0.0
        # When the phase began, and with which queue.
        self._began = self._began_queue = 0.0
        # When the kernel will have sent all that it was given, at its pace.
        self._departs = 0.0

    @property
    def target(self) -> float:
        """Seconds of queue that are wanted."""
        return max(TARGET, TARGET_BYTES / (self.rate * self.legs)) if self.rate else TARGET

    @property
    def _has_measured(self) -> bool:
        """Whether there is a rate of this phase alone."""
        return self._history[-1][0] - self._history[0][0] >= RATE_SECONDS / 2

    def departure(self, count: int, now: float) -> float:
        """``count`` bytes are handed to the kernel: when the last of them will leave it, at its pace."""
        pace = self.pace
        if not pace:
            return now
        departs = max(self._departs, now) + count / pace
        self._departs = departs = min(departs, now + MAX_WAIT)
        return departs

    def holds(self, unsent: int, now: float) -> None:
        """The kernel has so many bytes that it has not sent."""
        if self.pace:
            self._departs = now + unsent / self.pace

    def measured(
        self, departed: float, arrived: int, round_trip: float, delivered: int, is_busy: bool, now: float
    ) -> bool:
        """A receipt has come: a record that ``departed`` by our clock has ``arrived`` by the peer's.

        ``arrived`` is in microseconds of 32 bits, ``delivered`` are all bytes so far. ``is_busy`` is False
        unless there was something to send all the time. Returns whether the pace has changed.
        """
        if self._offset is None:
            self._offset = arrived / 1e6 - departed
        # by the first time: seconds of a clock that never wraps
        one_way = (arrived / 1e6 - departed - self._offset + _WRAP / 2) % _WRAP - _WRAP / 2
        peer_now = departed + one_way
        self._remember(one_way, now)
        history = self._history
        least = min(self._least_now, self._least_before)
        is_busy = is_busy or one_way > least + self.target  # what waits keeps the path busy
        if not is_busy or not history or now - self._step_at > PAUSE + round_trip:
            history.clear()
            if is_busy:
                history.append((peer_now, delivered))
            self._begin_step(now)
            return False
        self._least_step = min(self._least_step, one_way)
        if now - self._step_at < max(STEP, round_trip):
            return False
        history.append((peer_now, delivered))
        seconds = FIRST_SECONDS if self.phase is _FREE else RATE_SECONDS
        first = 0
        while first < len(history) - 2 and peer_now - history[first + 1][0] >= seconds:
            first += 1
        since, before = history[first]
        if peer_now - since >= RATE_SECONDS / 2:
            self.rate = (delivered - before) / (peer_now - since)
        elif not self.rate:
            return False
        self.queue = self._least_step - least
        self._begin_step(now)
        pace = self.pace
        self._decide(round_trip, now)
        if self.pace:
            self.pace = max(self.pace, MIN_PACE)
        self._size(round_trip)
        return self.pace != pace

    def give_up(self, now: float) -> None:
        """Leave a path that loses to TCP, for LOSSY_FOR: records are late there without any queue."""
        self._leave(_CONTESTED, now)
        self._began = now + LOSSY_FOR - CONTESTED_FOR
        self.train, self.in_flight = MAX_TRAIN, 0

    def drain(self, now: float) -> bool:
        """Another leg of the direction drains: with it, if the pace is ours. Returns whether it changed."""
        if self.phase is _STEADY:
            self._seen_at = now
            self._enter_drain(now)
            self.pace = max(self.pace, MIN_PACE)
            return True
        return False

    def _begin_step(self, now: float) -> None:
        self._step_at = now
        self._least_step = _NEVER

    def _remember(self, one_way: float, now: float) -> None:
        if now - self._least_since > LEAST_MEMORY / 2:
            self._least_before, self._least_now = self._least_now, one_way
            self._least_since = now
        elif one_way < self._least_now:
            self._least_now = one_way
        if one_way <= min(self._least_now, self._least_before) + NEAR:
            self._seen_at = now

    def _decide(self, round_trip: float, now: float) -> None:
        target = self.target
        phase = self.phase
        self._loaded_steps = self._loaded_steps + 1 if self.queue > target else 0
        if phase is _STEADY:
            if len(self._history) >= MIN_STEPS:
                self._rates.append(self.rate)
                self._follow(target)
            if self.rate > PACED_BELOW:
                self._leave(_FREE, now)
            elif self.queue > EXCESS * target and self._loaded_steps >= 2:
                self._enter_drain(now)
            elif now - self._seen_at > LEAST_AGE:
                self._seen_at = now
                self.wants_drain = True
                self._enter_drain(now)
        elif phase is _DRAIN:
            if self.queue > self._began_queue * GROWN:  # by what was in flight already
                self._began = now
                self._began_queue = self.queue
            if self.queue <= target * DRAINED:
                self._enter_steady()
            elif now - self._began > self._began_queue / (1 - DRAIN_SHARE) + 2 * round_trip + PATIENCE:
                if self.queue > self._began_queue / 2:
                    self._leave(_CONTESTED, now)
                else:
                    self._enter_steady()
            elif self.queue > target and self._has_measured:
                self._full = self.rate  # a path with a queue delivers all that it can
                self.pace = self._full * DRAIN_SHARE
        elif phase is _FREE:
            if self._loaded_steps >= FREE_STEPS and self.rate < PACED_BELOW:
                self._enter_drain(now)
        elif now - self._began > CONTESTED_FOR:
            self.phase = _FREE

    def _follow(self, target: float) -> None:
        """The pace in the phase STEADY."""
        rate = max(self._rates)
        short = (target - self.queue) / target
        if short <= EMPTY:
            self._excess = SLOPE
            self.pace = rate * (1 + max(SLOPE * short, -MAX_BELOW))
            return
        # Nothing waits, so it is not the path that is slow, should the rate have been less than the pace.
        self._excess = min(self._excess * RAMP, MAX_ABOVE)
        self.pace = max(rate * (1 + self._excess * short), min(self.pace, rate * MAX_AHEAD))

    def _enter_drain(self, now: float) -> None:
        self.phase = _DRAIN
        self._began = now
        self._began_queue = max(self.queue, 0.0)
        self._full = max(self._rates, default=self.rate) if self.queue <= EXCESS * self.target else self.rate
        self._rates.clear()
        self._history.clear()
        self.pace = self._full * DRAIN_SHARE

    def _enter_steady(self) -> None:
        self.phase = _STEADY
        self._excess = SLOPE
        self.rate = self.pace = self._full
        self._history.clear()  # what was delivered while draining says nothing

    def _leave(self, phase: Phase, now: float) -> None:
        """Leave the path to TCP."""
        self.phase = phase
        self._began = now
        self._loaded_steps = 0
        self.pace = 0.0

    def _size(self, round_trip: float) -> None:
        """Set the size of trains, by the rate of a path known to be slow, and what may be in flight."""
        is_slow = self.pace > 0 or self.phase is _CONTESTED
        self.train = min(max(int(self.rate * TRAIN_TIME), MIN_TRAIN), MAX_TRAIN) if is_slow else MAX_TRAIN
        self.in_flight = int(self.pace * (round_trip + IN_FLIGHT_TIME)) + MIN_IN_FLIGHT if self.pace else 0
