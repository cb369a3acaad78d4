"""The allow-list: one small file for each client, read again when the directory changes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from halftunnel_vpn.config.clients import parse_client_entry
from halftunnel_vpn.errors import ConfigError

SETTLED_AFTER = 1_000_000_000
"""Nanoseconds after its last change from which on a directory that looks the same is the same."""

log = logging.getLogger(__name__)


class ClientList:
    """Who may use the exit. ``removed`` is called with the name of a client that is on the list no more."""

    def __init__(self, directory: Path, *, limit: int, removed: Callable[[str], None]) -> None:
        self._directory = directory
        self._limit = limit
        self._removed = removed
        self._names: dict[bytes, str] = {}
        self._stamp: tuple[int, int] | None = None
        self._problem = ""

    def __len__(self) -> int:
        return len(self._names)

    def name_of(self, public_key: bytes) -> str | None:
        """The client with ``public_key``; None for a stranger."""
        self.refresh()
        return self._names.get(public_key)

    def refresh(self) -> None:
        """Read the files again if one came or went; what cannot be read now leaves the list as it is."""
        try:
            stamp = self._look()
            if stamp is not None and stamp == self._stamp:
                return
            # a change within the same tick of the clock would leave no other trace
            is_settled = stamp is not None and time.time_ns() - stamp[0] > SETTLED_AFTER
            now = self._read() if stamp is not None else {}
        except OSError as error:  # no descriptor is left, say: nobody is cut off for that
            self._stamp = None
            if self._problem != str(error):
                self._problem = str(error)
                log.warning("the list of clients stays as it is: %s", error)
            return
        self._problem = ""
        self._stamp = stamp if is_settled else None
        before, self._names = self._names, now
        for public_key, name in before.items():
            if now.get(public_key) != name:
                self._removed(name)

    def _look(self) -> tuple[int, int] | None:
        try:
            status = self._directory.stat()
        except FileNotFoundError:
            return None
        return status.st_mtime_ns, status.st_ino

    def _read(self) -> dict[bytes, str]:
        names: dict[bytes, str] = {}
        for path in sorted(path for path in self._directory.iterdir() if path.suffix == ".toml"):
            if len(names) >= self._limit:
                log.warning("more than %d clients: the rest of the list is not read", self._limit)
                break
            try:
                entry = parse_client_entry(path.read_text(encoding="utf-8"), source=path.name)
            except UnicodeDecodeError:
                log.warning("a client file is left out: %s is no UTF-8 text", path.name)
            except (FileNotFoundError, PermissionError, IsADirectoryError, ConfigError) as error:
                log.warning("a client file is left out: %s", error)
            else:
                names[entry.public_key] = entry.name
        return names
