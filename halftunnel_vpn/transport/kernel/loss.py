"""Whether the path of a leg loses segments that no queue of its own explains.

On such a path records arrive late behind each loss, which looks like a queue. So its pace is left to TCP.
"""

from __future__ import annotations

LOSSY = 0.004
"""Part of the segments, sent again, from which on a path loses,"""

MIN_EVENTS = 5
"""and the least number of round trips with losses: a queue that overflows loses many segments at once."""

REPAIR_ROUND_TRIPS = 5
"""Round trips after losses in a full queue, in which the rest of them are sent again without one."""

WINDOW_ROUND_TRIPS = 10
"""Round trips that a window has at least."""

WINDOW = 1000
"""Segments over which losses are counted,"""

MIN_WINDOW_SECONDS = 0.3
"""and the least number of seconds: so many polls take time;"""

MAX_WINDOW_SECONDS, MIN_SEGMENTS = 5.0, 100
"""the most seconds, with the least number of segments for them."""

GRACE = 1.0
"""Seconds at a pace after which it, and no longer TCP, keeps the queue."""

FREE_SHARE, FREE_QUEUE = 1 / 8, 0.005
"""Part of the least round trip, and seconds, by either of which a queue that explains losses exceeds it."""

PACED_SHARE, PACED_QUEUE = 1 / 4, 0.015
"""Part of the least round trip and seconds, both together, at a pace: each direction keeps a little queue."""


REPEATS = 0.002
"""Part of the segments from which on repeats count as frequent, whatever their reason."""

REPEATS_EVERY, MIN_REPEATS = 0.25, 6
"""Seconds between two repeats that are counted apart, and the least number of these: a start has one."""

REPEATS_WINDOW = 10.0
"""Seconds over which they are counted, at most."""


class RepeatCount:
    """Counts what a leg sends again. Times are seconds of its clock."""

    __slots__ = ("_began", "_event_at", "_events", "_repeated", "_repeated_before", "_segments")

    def __init__(self) -> None:
        # When the window began, with how many segments, and how many of them sent again.
        self._began = float("-inf")
        self._segments = self._repeated_before = 0
        # How many times some were sent again in this window, when last, and how many there were by then.
        self._events = 0
        self._event_at = float("-inf")
        self._repeated = 0

    def check(self, repeated: int, segments: int, now: float) -> bool:
        """Return whether segments are sent again and again; then the count begins again.

        ``segments`` have been sent so far, ``repeated`` of them again.
        """
        if now - self._began > REPEATS_WINDOW:
            self._begin(repeated, segments, now)
        if repeated > self._repeated and now - self._event_at >= REPEATS_EVERY:
            self._events += 1
            self._event_at = now
        self._repeated = repeated
        if self._events < MIN_REPEATS:
            return False
        is_much = repeated - self._repeated_before >= REPEATS * (segments - self._segments)
        self._begin(repeated, segments, now)
        return is_much

    def _begin(self, repeated: int, segments: int, now: float) -> None:
        self._began, self._segments, self._repeated_before = now, segments, repeated
        self._events = 0


class LossCount:
    """Counts the losses of one leg. Times are seconds of its clock."""

    __slots__ = (
        "_began",
        "_event_at",
        "_events",
        "_lost",
        "_paced_since",
        "_repaired_at",
        "_repeated",
        "_segments",
    )

    def __init__(self) -> None:
        # The segments of this window that were lost without a queue, and the polls that found some.
        self._lost = self._events = 0
        # All segments that were sent again until the last poll.
        self._repeated = 0
        # When the window began, and after how many segments.
        self._began = 0.0
        self._segments = 0
        # The time of the last such poll, and until when losses belong to a full queue.
        self._event_at = self._repaired_at = float("-inf")
        # Since when the leg has had a pace; None without.
        self._paced_since: float | None = None

    def paced(self, is_paced: bool, now: float) -> None:
        """The leg has a pace from ``now`` on, or none."""
        if not is_paced:
            self._paced_since = None
        elif self._paced_since is None:
            self._paced_since = now

    def check(self, repeated: int, segments: int, round_trip: float, least: float, now: float) -> bool:
        """Return whether the path loses; then the count begins again.

        ``segments`` have been sent so far, ``repeated`` of them again. ``round_trip`` and ``least`` are the
        smoothed and the least one, in seconds.
        """
        lost, self._repeated = repeated - self._repeated, repeated
        if lost > 0 and self._is_explained(round_trip, least, now):
            self._repaired_at = now + REPAIR_ROUND_TRIPS * round_trip
        elif lost > 0 and now >= self._repaired_at:
            self._lost += lost
            if now - self._event_at >= round_trip:
                self._event_at = now
                self._events += 1
            count = max(segments - self._segments, MIN_EVENTS / LOSSY / 2)
            if self._events >= MIN_EVENTS and self._lost >= LOSSY * count:
                self._begin(segments, now)
                return True
        count, seconds = segments - self._segments, now - self._began
        least_seconds = max(MIN_WINDOW_SECONDS, WINDOW_ROUND_TRIPS * round_trip)
        most_seconds = max(MAX_WINDOW_SECONDS, least_seconds)
        is_over = count >= WINDOW and seconds >= least_seconds
        if is_over or (count >= MIN_SEGMENTS and seconds >= most_seconds):
            self._begin(segments, now)
        return False

    def _begin(self, segments: int, now: float) -> None:
        self._lost = self._events = 0
        self._began, self._segments = now, segments

    def _is_explained(self, round_trip: float, least: float, now: float) -> bool:
        since = self._paced_since
        if since is not None and now - since >= GRACE:
            return round_trip > least * (1 + PACED_SHARE) + PACED_QUEUE
        return round_trip > least + max(least * FREE_SHARE, FREE_QUEUE)
