"""The pace of a leg: as fast as its path delivers, with a short queue.

A path has one bottleneck. Data that is sent faster waits in front of it, and delays everything after it. Data
that waits at the sender can be overtaken. So the sender limits its pace on slow paths, by the rate and the
queue that receipts show (:class:`PathEstimate`). These are the estimates of BBR (Cardwell and others, 2016).
The pace follows the queue, as in Copa (Arun and Balakrishnan, 2018): it is a little above the delivered rate
while the queue is shorter than its target, and a little below it while the queue is longer.

    phase     | pace                        | leads to
    ----------+-----------------------------+--------------------------------------------------------------
    FREE      | none: TCP finds the rate    | DRAIN when the rate is found, is slow, and there is a queue
    DRAIN     | a part of the rate          | STEADY when the queue is gone, CONTESTED when it stays
    STEADY    | the rate, by the queue      | DRAIN when the queue grows or the least time is old,
              |                             | FREE when the path is fast
    CONTESTED | none: others fill the queue | FREE after a while, each time a longer one
    LOSSY     | none: nothing is estimated  | FREE when it has lost nothing for a while

Each phase becomes LOSSY when the path loses segments that no queue of ours explains: records are late there
behind each loss, which looks like a queue. A path that other senders fill is left to TCP, because a sender
that yields there gets nothing.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import Final

from halftunnel_vpn.protocol.records import MAX_TRAIN
from halftunnel_vpn.session.path_estimate import PathEstimate

PACED_BELOW: Final = 7_500_000
"""Bytes per second from which a path is fast: it empties its queue within tens of milliseconds."""

FAST_ABOVE: Final = 10_000_000
"""Bytes a second above which a path with a pace has become fast."""

MIN_PACE: Final = 4_000.0
"""Bytes a second that a leg may always send, whatever a peer's clock says: half of 64 kbit/s."""

RATE_SECONDS: Final = 0.2
"""Seconds over which a rate is averaged, if there are enough steps,"""

FIRST_SECONDS: Final = 0.4
"""and before there is a pace: losses stop a connection, and what follows comes at once."""

FREE_STEPS: Final = 4
"""Steps in a row with a queue after which a path without a pace may be a slow one."""

TARGET: Final = 0.006
"""Seconds of queue that keep a path busy,"""

TARGET_BYTES: Final = 2200
"""or this many bytes, if that takes longer."""

SLOPE: Final = 0.05
"""Part by which the pace exceeds the rate without any queue, and falls below it at twice the target."""

MAX_BELOW: Final = 0.12
"""Part by which it falls below the rate at most."""

RAMP: Final = 1.5
"""Factor by which the excess grows with each step without a queue: the path may have become faster."""

MAX_ABOVE: Final = 0.25
"""The excess at most, where the rate does not follow the pace; and with which a pace begins after a pause."""

MAX_PROBE: Final = 1.0
"""The excess at most, where it does."""

FOLLOWS: Final = 0.75
"""Part of the pace from which on the rate of a step follows it."""

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
"""Seconds after which a least one-way time that was not seen again is looked for, by draining."""

CONTESTED_FOR: Final = 5.0
"""Seconds for which a path is left to TCP; twice as many each further time,"""

MAX_CONTESTED: Final = 160.0
"""up to this many seconds,"""

SETTLED: Final = 10.0
"""unless it has been steady for this many seconds."""

TRAIN_TIME: Final = 0.003
"""Seconds that a train may take at the pace."""

MIN_TRAIN: Final = 2048
"""Bytes of a train that are always allowed."""

MAX_WAIT: Final = 0.1
"""Seconds that a record waits in the kernel at most, which holds little that is unsent."""

RATES: Final = 8
"""Rates of which the greatest counts."""

MIN_STEPS: Final = 3
"""Steps after draining for which the pace stays: a rate over fewer is not exact."""

IN_FLIGHT_TIME: Final = 0.08
"""Seconds beyond a round trip for which bytes are in flight: they wait in the kernel, and receipts wait."""

MIN_IN_FLIGHT: Final = 32 * 1024
"""Bytes that may always be in flight at a pace of ours."""


class Phase(enum.Enum):
    """What the pacer is doing; see the table above."""

    FREE = "free"
    DRAIN = "drain"
    STEADY = "steady"
    CONTESTED = "contested"
    LOSSY = "lossy"


# plain names: an attribute of an Enum class is looked up slowly
_FREE, _DRAIN, _STEADY = Phase.FREE, Phase.DRAIN, Phase.STEADY
_CONTESTED, _LOSSY = Phase.CONTESTED, Phase.LOSSY


class Pacer:
    """The pace of one leg. Times are seconds of our own clock, rates bytes a second."""

    __slots__ = (
        "_began",
        "_began_queue",
        "_contested_for",
        "_departs",
        "_excess",
        "_full",
        "_loaded_steps",
        "_path",
        "_rates",
        "in_flight",
        "legs",
        "pace",
        "phase",
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
        # Whether the other legs of the direction should drain as well, to see an empty path.
        self.wants_drain = False
        self._path = PathEstimate()
        # The last rates since a drain: the pace goes by the greatest, since single ones may be small.
        self._rates: deque[float] = deque(maxlen=RATES)
        # Steps in a row with more queue than the target.
        self._loaded_steps = 0
        self._excess = SLOPE
        # What the path delivered when a queue was last seen.
        self._full = 0.0
        # When the phase began (LOSSY: ends), and with which queue.
        self._began = self._began_queue = 0.0
        # How long the next phase CONTESTED lasts.
        self._contested_for = CONTESTED_FOR
        # When the kernel will have sent all that it was given, at its pace.
        self._departs = 0.0

    @property
    def target(self) -> float:
        """Seconds of queue that are wanted."""
        rate = self._path.rate
        return max(TARGET, TARGET_BYTES / (rate * self.legs)) if rate > 0 else TARGET

    def departure(self, count: int, now: float) -> float:
        """Note that the kernel got ``count`` bytes; return when the last of them is sent, at its pace."""
        pace = self.pace
        if not pace:
            return now
        departs = max(self._departs, now) + count / pace
        self._departs = departs = min(departs, now + MAX_WAIT)
        return departs

    def holds(self, unsent: int, now: float) -> None:
        """Note how many bytes the kernel has not sent."""
        if self.pace:
            self._departs = now + unsent / self.pace

    def measured(
        self, departed: float, arrived: int, round_trip: float, delivered: int, is_busy: bool, now: float
    ) -> bool:
        """Take a receipt of a record that ``departed`` by our clock and ``arrived`` by the peer's.

        ``arrived`` is in microseconds of 32 bits, ``delivered`` are all bytes so far. ``is_busy`` is False
        unless there was something to send all the time. Returns whether the pace has changed.
        """
        if self.phase is _LOSSY:
            if now >= self._began:
                self._path.forget()
                self._leave(_FREE, now)
            return False
        over = FIRST_SECONDS if self.phase is _FREE else RATE_SECONDS
        target = self.target
        if not self._path.add(
            departed, arrived, round_trip, delivered, is_busy, now, over=over, target=target
        ):
            return False
        pace = self.pace
        self._decide(round_trip, now)
        if self.pace:
            self.pace = max(self.pace, MIN_PACE)
        self._size(round_trip)
        return self.pace != pace

    def give_up(self, until: float) -> None:
        """Leave a lossy path to TCP ``until`` this time."""
        self._leave(_LOSSY, until)
        self.train, self.in_flight = MAX_TRAIN, 0

    def drain(self, now: float) -> bool:
        """Another leg of the direction drains: with it, if the pace is ours. Returns whether it changed."""
        if self.phase is _STEADY:
            self._path.seen_at = now
            self._enter_drain(now)
            self.pace = max(self.pace, MIN_PACE)
            return True
        return False

    def _decide(self, round_trip: float, now: float) -> None:
        target = self.target
        phase = self.phase
        path = self._path
        self._loaded_steps = self._loaded_steps + 1 if path.queue > target else 0
        if phase is _STEADY:
            if path.steps >= MIN_STEPS:
                self._rates.append(path.rate)
                self._follow(target)
            if path.rate * self.legs > FAST_ABOVE:
                self._leave(_FREE, now)
            elif path.queue > EXCESS * target and self._loaded_steps >= 2:
                self._enter_drain(now)
            elif now - path.seen_at > LEAST_AGE:
                path.seen_at = now
                self.wants_drain = True
                self._enter_drain(now)
            elif now - self._began > SETTLED:
                self._contested_for = CONTESTED_FOR
        elif phase is _DRAIN:
            self._while_draining(round_trip, now)
        elif phase is _FREE:
            is_slow = path.is_even and path.rate * self.legs < PACED_BELOW
            if is_slow and self._loaded_steps >= FREE_STEPS:
                self._enter_drain(now)
        elif now - self._began > self._contested_for:
            self._contested_for = min(2 * self._contested_for, MAX_CONTESTED)
            self.phase = _FREE

    def _while_draining(self, round_trip: float, now: float) -> None:
        path, target = self._path, self.target
        if path.queue > self._began_queue * GROWN:  # by what was in flight already
            self._began = now
            self._began_queue = path.queue
        if path.queue <= target * DRAINED:
            self._enter_steady(now)
        elif now - self._began > self._began_queue / (1 - DRAIN_SHARE) + 2 * round_trip + PATIENCE:
            if path.queue > self._began_queue / 2:
                self._leave(_CONTESTED, now)
            else:
                self._enter_steady(now)
        elif path.queue > target and path.span >= RATE_SECONDS / 2:
            self._full = path.rate  # a path with a queue delivers all that it can
            self.pace = self._full * DRAIN_SHARE

    def _follow(self, target: float) -> None:
        """Set the pace of the phase STEADY."""
        path = self._path
        rate = max(self._rates)
        short = (target - path.queue) / target
        if short <= EMPTY:
            self._excess = SLOPE
            self.pace = rate * (1 + max(SLOPE * short, -MAX_BELOW))
            return
        if path.was_idle:  # the rate may be an old one
            path.was_idle = False
            self._excess = max(self._excess, MAX_ABOVE)
        excess = self._excess * RAMP
        # Nothing waits, so it is not the path that is slow, should the rate have been less than the pace.
        self._excess = min(excess, MAX_ABOVE)
        pace = max(rate * (1 + self._excess * short), min(self.pace, rate * MAX_AHEAD))
        if excess > MAX_ABOVE and path.last_rate > self.pace * FOLLOWS:
            self._excess = min(excess, MAX_PROBE)
            pace = max(pace, min(path.last_rate, self.pace) * (1 + self._excess * short))
        self.pace = pace

    def _enter_drain(self, now: float) -> None:
        path = self._path
        self.phase = _DRAIN
        self._began = now
        self._began_queue = max(path.queue, 0.0)
        self._full = max(self._rates, default=path.rate) if path.queue <= EXCESS * self.target else path.rate
        self._rates.clear()
        path.forget()
        self.pace = self._full * DRAIN_SHARE

    def _enter_steady(self, now: float) -> None:
        self.phase = _STEADY
        self._began = now
        self._excess = SLOPE
        self._path.rate = self.pace = self._full
        self._path.was_idle = False
        self._path.forget()  # what was delivered while draining says nothing

    def _leave(self, phase: Phase, now: float) -> None:
        """Leave the path to TCP."""
        self.phase = phase
        self._began = now
        self._loaded_steps = 0
        self._rates.clear()
        self.pace = 0.0

    def _size(self, round_trip: float) -> None:
        """Set the size of trains, by the rate of a path known to be slow, and what may be in flight."""
        rate = self._path.rate
        is_slow = self.pace > 0 or (self.phase is _CONTESTED and rate * self.legs < PACED_BELOW)
        self.train = min(max(int(rate * TRAIN_TIME), MIN_TRAIN), MAX_TRAIN) if is_slow else MAX_TRAIN
        self.in_flight = int(self.pace * (round_trip + IN_FLIGHT_TIME)) + MIN_IN_FLIGHT if self.pace else 0
