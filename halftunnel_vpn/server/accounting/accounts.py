"""The accounts of all clients: what they use is collected every second, and their terms are enforced."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, NamedTuple

from halftunnel_vpn.config.clients import ClientEntry
from halftunnel_vpn.protocol.handshake_payloads import ExitStatus
from halftunnel_vpn.server.accounting.client_terms import refusal
from halftunnel_vpn.server.accounting.ledger import KEPT_DAYS, Batch, Ledger, Used
from halftunnel_vpn.server.accounting.meters import Meters

COLLECT_INTERVAL: Final = 1.0
"""Seconds between two collections; a client beyond its quota is cut off within this time."""

WRITE_INTERVAL: Final = 20.0
"""Seconds between two writes to disk, of which a power cut loses what came in between."""


class Rates(NamedTuple):
    """Bytes a second, as measured over the last interval."""

    sent: float = 0.0
    received: float = 0.0


NO_RATES: Final = Rates()


class Accounts:
    """``entry_of`` returns the entry of a client by name, None if it is not listed.

    ``in_session`` yields the names of clients with a session, ``has_legs`` returns whether one is connected.

    ``cut_off`` is called with the name of a client whose sessions must end. Times are arguments: ``now`` is
    monotonic, ``wall`` seconds since 1970.
    """

    def __init__(
        self,
        meters: Meters,
        ledger: Ledger,
        *,
        entry_of: Callable[[str], ClientEntry | None],
        in_session: Callable[[], Iterable[str]],
        has_legs: Callable[[str], bool],
        cut_off: Callable[[str], None],
    ) -> None:
        self._meters = meters
        self._ledger = ledger
        self._entry_of = entry_of
        self._in_session = in_session
        self._has_legs = has_legs
        self._cut_off = cut_off
        self._collected: dict[str, Used] = {}
        self._collected_at = 0.0
        self._rates: dict[str, Rates] = {}
        self._written_at = 0.0
        self._is_writing = False

    def begin(self, now: float, wall: float) -> None:
        """Read what an earlier process has written."""
        self._collected_at = self._written_at = now
        self._ledger.load(day_of(wall))

    def collect(self, now: float, wall: float) -> None:
        """Take over what the meters say, and cut off clients that may not be connected any more."""
        self._take_readings(now, wall)
        for client in set(self._in_session()):
            if self._has_legs(client):
                self._ledger.see(client, wall)
            if self.refusal_of(client) is not None:
                self._cut_off(client)

    def _take_readings(self, now: float, wall: float) -> None:
        self._ledger.begin_day(day_of(wall))
        self._meters.keep(lambda client: self._entry_of(client) is not None)
        seconds = max(now - self._collected_at, 1e-3)
        collected: dict[str, Used] = {}
        rates: dict[str, Rates] = {}
        for client, meter in self._meters:
            collected[client] = reading = meter.sent, meter.received
            before = self._collected.get(client, (0, 0))
            sent, received = reading[0] - before[0], reading[1] - before[1]
            if sent or received:
                self._ledger.add(client, sent, received)
                rates[client] = Rates(sent / seconds, received / seconds)
            self.apply_rate(client)
        self._collected, self._rates, self._collected_at = collected, rates, now

    def apply_rate(self, client: str) -> None:
        """Limit ``client`` as its entry says."""
        entry = self._entry_of(client)
        self._meters.of(client).set_rate(0.0 if entry is None or entry.rate is None else entry.rate)

    def refusal_of(self, client: str) -> ExitStatus | None:
        """Return why ``client`` may not connect now; None if it may, or if it is not listed."""
        entry = self._entry_of(client)
        return None if entry is None else refusal(entry, self._ledger.day, sum(self.of_month(client)))

    def of_day(self, client: str) -> Used:
        """Return what ``client`` has used today, as last collected."""
        return self._ledger.of_day(client)

    def of_month(self, client: str) -> Used:
        """Return what ``client`` has used this month, as last collected."""
        return self._ledger.of_month(client)

    def rates_of(self, client: str) -> Rates:
        """Return how fast ``client`` is now."""
        return self._rates.get(client, NO_RATES)

    def last_seen(self, client: str) -> float | None:
        """Return when ``client`` was connected last; None if it never was."""
        return self._ledger.last_seen(client)

    def write_soon(self, now: float, start: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        """Write in a thread if it is time; ``start`` runs a coroutine as an owned task."""
        if now - self._written_at >= WRITE_INTERVAL and not self._is_writing:
            self._written_at = now
            self._is_writing = True
            start(self._write())

    async def _write(self) -> None:
        batch = self._ledger.take()
        try:
            if await asyncio.to_thread(self._ledger.write, batch, self._oldest()):
                batch = Batch({}, {})
        finally:
            self._ledger.put_back(batch)
            self._is_writing = False

    def close(self, now: float, wall: float) -> None:
        """Write what is not on disk yet, before the process ends."""
        self._take_readings(now, wall)
        self._ledger.write(self._ledger.take(), self._oldest())

    def _oldest(self) -> str:
        return (date.fromisoformat(self._ledger.day) - timedelta(days=KEPT_DAYS)).isoformat()


def day_of(wall: float) -> str:
    """Return the date in UTC."""
    return datetime.fromtimestamp(wall, UTC).date().isoformat()
