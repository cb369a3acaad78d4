"""The last accepted timestamp of each client on disk, so that replays are refused after a restart."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import HalfTunnelError
from halftunnel_vpn.protocol.handshake import ReplayGuard
from halftunnel_vpn.storage.atomic_file import replace_file
from halftunnel_vpn.storage.bounded_file import read_regular

GUARD_FILE = "handshakes.json"

MAX_FILE = 16 * 1024 * 1024
"""The most bytes that are read: MAX_REPLAY_CLIENTS entries have 70 each."""

log = logging.getLogger(__name__)


class GuardFile:
    """Saves ``guard`` in ``directory``. ``start`` runs a coroutine as an owned task.

    Writing waits for the disk, so it happens in a thread, one write at a time. A change during a write is in
    the next one. Dropped: ``guard-not-saved``.
    """

    def __init__(
        self,
        guard: ReplayGuard,
        directory: Path,
        start: Callable[[Coroutine[Any, Any, None]], object],
        counters: Counters,
    ) -> None:
        self._guard = guard
        self._path = directory / GUARD_FILE
        self._start = start
        self._counters = counters
        self._is_writing = False
        # The number of changes. The file on disk is that of change _saved.
        self._changes = 0
        self._saved = 0
        self._lock = threading.Lock()

    def load(self) -> None:
        """Load what an earlier process has accepted."""
        try:
            self._guard.load(json.loads(read_regular(self._path, MAX_FILE)))
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, AttributeError, HalfTunnelError) as error:
            log.warning("%s cannot be read and starts empty: %s", GUARD_FILE, error)

    def changed(self) -> None:
        """Save soon: a handshake was accepted."""
        self._changes += 1
        if not self._is_writing:
            self._is_writing = True
            self._start(self._write())

    def save(self) -> None:
        """Save the last changes at once, before the process ends."""
        self._replace(self._text(), self._changes)

    async def _write(self) -> None:
        try:
            written = -1
            while written != self._changes:
                written = self._changes
                await asyncio.to_thread(self._replace, self._text(), written)
        finally:
            self._is_writing = False

    def _text(self) -> str:
        return json.dumps(self._guard.export())

    def _replace(self, text: str, change: int) -> None:
        with self._lock:
            if change <= self._saved:
                return
            try:
                replace_file(self._path, text)
                self._saved = change
            except OSError as error:
                # Replays are still refused until a restart. After it only the clock bounds them.
                if not self._counters.dropped["guard-not-saved"]:
                    log.warning("%s cannot be written: %s", self._path, error.strerror)
                self._counters.drop("guard-not-saved")
