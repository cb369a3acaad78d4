"""The retransmission timeout, from measured round trips (RFC 6298)."""

from __future__ import annotations

from math import inf
from typing import Final

from halftunnel_vpn.flow.tcp.endpoint_config import TcpEndpointConfig
from halftunnel_vpn.timers import GRANULARITY

_GAIN: Final = 1 / 8
_VARIATION_GAIN: Final = 1 / 4

REST: Final = 0.02
"""Seconds between two measurements: a tenth of the least timeout, which is often enough.

Between the host and its own device a round trip takes a fraction of a millisecond. Measuring each one would
give no new information."""


class RoundTrip:
    """``timeout`` is the RTO in seconds. Every :meth:`back_off` doubles it until new data is acknowledged.

    One round trip is measured at a time. ``watched`` is the sequence number whose acknowledgement ends the
    measurement, infinite while nothing is measured. ``rests_until`` is the time at which the next measurement
    may begin, infinite during one.
    """

    __slots__ = (
        "_base",
        "_max",
        "_min",
        "_repeated_at",
        "_since",
        "_variation",
        "rests_until",
        "smoothed",
        "timeout",
        "watched",
    )

    def __init__(self, config: TcpEndpointConfig) -> None:
        self._min = config.rto_min
        self._max = config.rto_max
        self._since = 0.0
        self._variation = 0.0
        self.smoothed: float | None = None
        self._repeated_at = 0.0
        self._base = config.rto_initial
        self.timeout = config.rto_initial
        self.watched: float = inf
        self.rests_until = 0.0

    def watch(self, end: int, now: float) -> None:
        """Begin a measurement: data that ends before ``end`` has just been sent for the first time."""
        self.watched = float(end)
        self.rests_until = inf
        self._since = now

    def arrived(self, now: float) -> None:
        """End the measurement: the watched data is acknowledged."""
        self.watched = inf
        self.rests_until = now + REST
        self.sample(now - self._since)

    def forget(self) -> None:
        """Drop the measurement: data was sent again, so acknowledgements are ambiguous (Karn's algorithm)."""
        self.watched = inf
        self.rests_until = 0.0

    def sample(self, seconds: float) -> None:
        """Update the timeout with one measured round trip (RFC 6298, 2.2 and 2.3)."""
        smoothed = self.smoothed
        if smoothed is None:
            self.smoothed = smoothed = seconds
            self._variation = seconds / 2
        else:
            self._variation += _VARIATION_GAIN * (abs(smoothed - seconds) - self._variation)
            self.smoothed = smoothed = smoothed + _GAIN * (seconds - smoothed)
        timeout = smoothed + max(GRANULARITY, 4 * self._variation)
        self.timeout = self._base = min(max(timeout, self._min), self._max)

    def back_off(self, now: float) -> None:
        """Double the timeout after it has expired; data is sent again at ``now`` (RFC 6298, 5.5)."""
        self.timeout = min(2 * self.timeout, self._max)
        self._repeated_at = now

    def answered(self, now: float) -> None:
        """Take the first acknowledgement of new data after :meth:`back_off`.

        If it comes soon after the retransmission it must answer that one. Then the round trip has not grown,
        and the timeout is reset. (With many losses no sample would reset it for a long time.)
        """
        if now - self._repeated_at <= max(2 * (self.smoothed or 0.0), GRANULARITY):
            self.timeout = self._base
