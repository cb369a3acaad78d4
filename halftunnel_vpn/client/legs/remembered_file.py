"""What a connection has learnt, on disk: a small JSON file in the state directory."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Protocol

from halftunnel_vpn.storage.atomic_file import replace_file
from halftunnel_vpn.timers import Timer
from halftunnel_vpn.transport.driver import Driver

KEEPALIVE_FILE = "keepalive.json"
PADDING_FILE = "padding.json"

MAX_FILE = 64 * 1024
"""The most bytes of a file that are read. What is remembered needs far less."""

SAVE_INTERVAL = 60.0
"""The poll interval in seconds for new values."""

log = logging.getLogger(__name__)


class Remembered(Protocol):
    """Something that outlives the process."""

    @property
    def changes(self) -> int:
        """A number that differs whenever there is something new."""
        ...

    def load(self, stored: object, wall: float) -> int:
        """Take what :meth:`export` returned; return the number of invalid entries. ``wall`` is Unix time."""
        ...

    def export(self) -> object:
        """Return everything as JSON data."""
        ...


class RememberedFile:
    """Loads ``table`` from ``path``, and writes it there between :meth:`start` and :meth:`stop`.

    If the file cannot be read or written, one warning is logged, and nothing is remembered.
    """

    def __init__(self, table: Remembered, path: Path, driver: Driver) -> None:
        self.table = table
        self._path = path
        self._driver = driver
        self._saved = table.changes
        self._told = False
        self._timer: Timer = driver.wheel.timer(self._poll)

    def start(self) -> None:
        """Load what an earlier process has saved, and start saving."""
        try:
            with self._path.open("rb") as file:
                stored = json.loads(file.read(MAX_FILE + 1))
            if self.table.load(stored, time.time()):
                log.warning("%s holds invalid entries; they are ignored", self._path)
        except FileNotFoundError:
            pass
        except (OSError, ValueError, RecursionError) as error:
            log.warning("%s cannot be read; what it remembered is lost: %s", self._path, error)
        self._timer.arm(self._driver.clock() + SAVE_INTERVAL)

    def stop(self) -> None:
        """Save new values for the last time."""
        self._timer.cancel()
        self._save()

    def _poll(self, now: float) -> None:
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
                log.warning("%s cannot be written; nothing will be remembered: %s", self._path, error)
