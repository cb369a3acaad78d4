"""Keepalive intervals that were learnt, on disk: a small JSON file in the state directory."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

from halftunnel_vpn.session.intervals import IntervalTable
from halftunnel_vpn.storage.atomic_file import replace_file
from halftunnel_vpn.timers import Timer
from halftunnel_vpn.transport.driver import Driver

KEEPALIVE_FILE = "keepalive.json"

MAX_FILE = 64 * 1024
"""Bytes of a file that is read; MAX_DOMAINS entries are far below."""

SAVE_INTERVAL = 60.0
"""Seconds between two looks whether something new was learnt."""

log = logging.getLogger(__name__)


class IntervalFile:
    """Loads ``table`` from ``directory`` and writes it there while :meth:`start` holds.

    A file that cannot be read or written costs nothing but what was learnt: it is told once.
    """

    def __init__(self, table: IntervalTable, directory: Path, driver: Driver) -> None:
        self.table = table
        self._path = directory / KEEPALIVE_FILE
        self._driver = driver
        self._saved = table.changes
        self._told = False
        self._timer: Timer = driver.wheel.timer(self._look)

    def start(self) -> None:
        """Take up what an earlier process has learnt, and begin to remember."""
        try:
            with self._path.open("rb") as file:
                stored = json.loads(file.read(MAX_FILE + 1))
            if self.table.load(stored, time.time()):
                log.warning("%s holds invalid entries; they are ignored", self._path)
        except FileNotFoundError:
            pass
        except (OSError, ValueError, RecursionError) as error:
            log.warning("%s cannot be read, so intervals are learnt again: %s", self._path, error)
        self._timer.arm(self._driver.clock() + SAVE_INTERVAL)

    def stop(self) -> None:
        """Write what is new, for the last time."""
        self._timer.cancel()
        self._save()

    def _look(self, now: float) -> None:
        self._timer.arm(now + SAVE_INTERVAL)
        self._save()

    def _save(self) -> None:
        if self._saved == self.table.changes:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self._path, json.dumps(self.table.export()))
            self._saved = self.table.changes
        except OSError as error:
            if not self._told:
                self._told = True
                log.warning("%s cannot be written; intervals will be learnt again: %s", self._path, error)
