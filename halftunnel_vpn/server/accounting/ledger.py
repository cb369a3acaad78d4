"""What clients have used, by day, in a SQLite file that survives restarts.

The figures of this month are in memory. What was added since the last write is written in one transaction,
by one thread at a time; a power cut loses no more than that.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from pathlib import Path
from typing import Final, NamedTuple

from halftunnel_vpn.counters import Counters

LEDGER_FILE: Final = "usage.sqlite"

KEPT_DAYS: Final = 400
"""Days for which figures are kept: a year, and the same month of the year before."""

MAX_UNSAVED: Final = 200_000
"""Entries that wait for a disk that cannot be written; further ones are not kept."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS usage (
    client TEXT NOT NULL, day TEXT NOT NULL, sent INTEGER NOT NULL, received INTEGER NOT NULL,
    PRIMARY KEY (client, day)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS seen (client TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
"""
_ADD: Final = """
INSERT INTO usage VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET sent = sent + excluded.sent, received = received + excluded.received
"""
_FORGET: Final = "DELETE FROM seen WHERE at < CAST(strftime('%s', ?) AS REAL)"
_SEE: Final = "INSERT INTO seen VALUES (?, ?) ON CONFLICT DO UPDATE SET at = excluded.at"

log = logging.getLogger(__name__)

Used = tuple[int, int]
"""Bytes sent to destinations, and received from them."""

NOTHING: Final = (0, 0)


class Batch(NamedTuple):
    """What one transaction puts on disk."""

    used: dict[tuple[str, str], Used]
    """By client and day."""
    seen: dict[str, float]


class Ledger:
    """The figures of all clients. Days are dates in UTC (``2026-01-31``), times seconds since 1970.

    Dropped: ``usage-not-saved``, ``usage-not-kept``.
    """

    def __init__(self, path: Path, counters: Counters) -> None:
        self._path = path
        self._counters = counters
        self.day = ""
        """Today."""
        # By client, of today and of this month.
        self._of_day: dict[str, Used] = {}
        self._of_month: dict[str, Used] = {}
        self._seen: dict[str, float] = {}
        self._unsaved = Batch({}, {})

    def load(self, day: str) -> None:
        """Read the figures of ``day`` and of its month. A file that cannot be read is put aside."""
        self.day = day
        try:
            self._read()
        except sqlite3.DatabaseError as error:
            log.warning("%s cannot be read and starts empty: %s", self._path, error)
            with contextlib.suppress(OSError):
                self._path.replace(self._path.with_suffix(".broken"))

    def _read(self) -> None:
        with contextlib.closing(self._connect()) as database:
            totals = "SELECT client, sum(sent), sum(received) FROM usage WHERE day >= ? GROUP BY client"
            for table, begin in ((self._of_day, self.day), (self._of_month, self.day[:7])):
                table.update({name: (sent, got) for name, sent, got in database.execute(totals, (begin,))})
            self._seen = dict(database.execute("SELECT client, at FROM seen"))

    def begin_day(self, day: str) -> None:
        """Count towards ``day`` from now on."""
        if day == self.day:
            return
        self._of_day = {}
        if day[:7] != self.day[:7]:
            self._of_month = {}
        self.day = day

    def add(self, client: str, sent: int, received: int) -> None:
        """Add bytes of ``client`` to today."""
        for table in (self._of_day, self._of_month):
            table[client] = _sum(table.get(client, NOTHING), (sent, received))
        self._keep((client, self.day), (sent, received))

    def see(self, client: str, now: float) -> None:
        """Note that ``client`` is connected."""
        self._seen[client] = self._unsaved.seen[client] = now

    def last_seen(self, client: str) -> float | None:
        """Return when ``client`` was connected last; None if it never was."""
        return self._seen.get(client)

    def of_day(self, client: str) -> Used:
        """Return what ``client`` has used today."""
        return self._of_day.get(client, NOTHING)

    def of_month(self, client: str) -> Used:
        """Return what ``client`` has used this month."""
        return self._of_month.get(client, NOTHING)

    def take(self) -> Batch:
        """Return what is not on disk yet, for :meth:`write`."""
        batch, self._unsaved = self._unsaved, Batch({}, {})
        return batch

    def put_back(self, batch: Batch) -> None:
        """Keep for the next time what could not be written."""
        for key, used in batch.used.items():
            self._keep(key, used)
        for client, seen in batch.seen.items():
            self._unsaved.seen.setdefault(client, seen)

    def _keep(self, key: tuple[str, str], used: Used) -> None:
        unsaved = self._unsaved.used
        if key not in unsaved and len(unsaved) >= MAX_UNSAVED:
            self._counters.drop("usage-not-kept")
            return
        unsaved[key] = _sum(unsaved.get(key, NOTHING), used)

    def write(self, batch: Batch, oldest: str) -> bool:
        """Put ``batch`` on disk and remove what is older than the day ``oldest``; return whether that worked.

        It touches nothing else, so it may run in a thread, one at a time.
        """
        if not batch.used and not batch.seen:
            return True
        try:
            with contextlib.closing(self._connect()) as database, database:
                database.executemany(_ADD, [(*key, *used) for key, used in batch.used.items()])
                database.executemany(_SEE, batch.seen.items())
                database.execute("DELETE FROM usage WHERE day < ?", (oldest,))
                database.execute(_FORGET, (oldest,))
        except sqlite3.Error as error:
            if not self._counters.dropped["usage-not-saved"]:
                log.warning("%s cannot be written: %s", self._path, error)
            self._counters.drop("usage-not-saved")
            return False
        return True

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, timeout=5.0)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            database.executescript(_SCHEMA)
        except BaseException:
            database.close()
            raise
        return database


def _sum(one: Used, other: Used) -> Used:
    return one[0] + other[0], one[1] + other[1]
