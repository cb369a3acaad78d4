"""How fast the clients were during the last hour, for the graphs of the web page."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Any, Final

STEP: Final = 10.0
"""Seconds of one point."""

POINTS: Final = 360
"""Points of a series: an hour."""

MAX_SERIES: Final = 1024
"""Clients with a series of their own; the one that was idle for longest gives way."""


class _Series:
    """The points of one client by the number of their step. Steps without traffic are not written."""

    __slots__ = ("last", "received", "sent")

    def __init__(self, step: int) -> None:
        self.last = step - 1
        self.sent = array("f", bytes(4 * POINTS))
        self.received = array("f", bytes(4 * POINTS))

    def put(self, step: int, sent: float, received: float) -> None:
        for missed in range(max(self.last + 1, step - POINTS + 1), step):
            self.sent[missed % POINTS] = self.received[missed % POINTS] = 0.0
        self.sent[step % POINTS], self.received[step % POINTS] = sent, received
        self.last = step

    def until(self, step: int, values: array[float]) -> list[int]:
        """Return the points up to ``step``, the oldest first."""
        steps = range(step - POINTS + 1, step + 1)
        return [round(values[one % POINTS]) if one <= self.last else 0 for one in steps]


class RateHistory:
    """Rates in bytes a second, a point for each STEP, of every client with traffic and of all together."""

    def __init__(self, now: float) -> None:
        self._step = 0
        self._sampled_at = now
        self._readings: dict[str, tuple[int, int]] = {}
        self._series: dict[str, _Series] = {}
        self._all = _Series(0)

    def sample(self, readings: Iterable[tuple[str, int, int]], now: float) -> None:
        """Add a point from the bytes that each client has ``sent`` and ``received`` in all."""
        seconds = max(now - self._sampled_at, 1e-3)
        self._sampled_at = now
        self._step += 1
        before, self._readings = self._readings, {}
        all_sent = all_received = 0.0
        for client, sent, received in readings:
            self._readings[client] = sent, received
            old_sent, old_received = before.get(client, (sent, received) if self._step == 1 else (0, 0))
            rates = max(0, sent - old_sent) / seconds, max(0, received - old_received) / seconds
            if any(rates):
                self._series_of(client).put(self._step, *rates)
                all_sent, all_received = all_sent + rates[0], all_received + rates[1]
        self._all.put(self._step, all_sent, all_received)
        oldest = self._step - POINTS
        self._series = {name: series for name, series in self._series.items() if series.last > oldest}

    def _series_of(self, client: str) -> _Series:
        series = self._series.get(client)
        if series is None:
            if len(self._series) >= MAX_SERIES:
                del self._series[min(self._series, key=lambda name: self._series[name].last)]
            series = self._series[client] = _Series(self._step)
        return series

    def of(self, client: str | None) -> dict[str, Any]:
        """Return the points of a client, of all together for None, the oldest first."""
        series = self._all if client is None else self._series.get(client) or _Series(self._step)
        return {
            "step": STEP,
            "sent": series.until(self._step, series.sent),
            "received": series.until(self._step, series.received),
        }
