"""The allow-list of clients: one small file per client, NAME.toml, read again when it changes."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from halftunnel_vpn.config.clients import ClientEntry, parse_client_entry
from halftunnel_vpn.errors import ConfigError
from halftunnel_vpn.storage.bounded_file import read_regular

MAX_CLIENT_FILE = 64 * 1024
"""The most bytes of the file of one client. Usually it has some hundred."""

SETTLED_AFTER = 1_000_000_000
"""Nanoseconds since the last change after which an unchanged stamp means an unchanged file."""

SHARE_OF_TIME = 20
"""For unknown keys, files are checked during at most 1/N of the time, because strangers may ask often."""

Stamp = tuple[int, int, int]
"""mtime_ns, size and inode."""

NO_STAMP: Stamp = (0, -1, 0)
"""The stamp of a file whose status cannot be read."""

SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO)
"""Errors that do not concern the file itself."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _File:
    """The content of a client file when it was read. Without name and key if it could not be used."""

    stamp: Stamp
    is_settled: bool
    entry: ClientEntry | None = None


class ClientList:
    """The clients that may use the exit. ``changed`` is called after every change of the list."""

    def __init__(self, directory: Path, *, limit: int, changed: Callable[[], None]) -> None:
        self._directory = directory
        self._limit = limit
        self._changed = changed
        self.entries: dict[str, ClientEntry] = {}
        """What is known of each client, by its name."""
        # By file name.
        self._files: dict[str, _File] = {}
        # Client and file name by public key.
        self._clients: dict[bytes, tuple[str, str]] = {}
        # The stamp of the directory when its files were last listed; None if it must be listed again.
        self._stamp: Stamp | None = None
        # Until this time (monotonic, in ns) unknown keys are only looked up in the present list.
        self._rest_until = 0
        self._problem = ""
        self._is_over_limit = False

    def set_limit(self, limit: int) -> None:
        """Use at most ``limit`` files from the next refresh on."""
        if limit != self._limit:
            self._limit = limit
            self._stamp = None

    def __len__(self) -> int:
        return len(self._clients)

    @property
    def has_room(self) -> bool:
        """Whether one more client would be used."""
        return len(self._clients) < self._limit

    def file_of(self, client: str) -> Path | None:
        """Return the file of a client, by its name; None if it is not listed."""
        entry = self.entries.get(client)
        known = None if entry is None else self._clients.get(entry.public_key)
        return None if known is None else self._directory / known[1]

    def name_of(self, public_key: bytes) -> str | None:
        """Return the client with ``public_key``, None for a stranger. Read a changed file first."""
        known = self._clients.get(public_key)
        if known is None:
            if time.monotonic_ns() >= self._rest_until or self._has_changed(self._directory, self._stamp):
                self.refresh()
        else:
            file = self._files[known[1]]
            if (
                not file.is_settled
                or self._has_changed(self._directory, self._stamp)
                or self._has_changed(self._directory / known[1], file.stamp)
            ):
                self.refresh()
        return self.listed(public_key)

    def listed(self, public_key: bytes) -> str | None:
        """Return the client with ``public_key`` as of the last reading of the files; None for a stranger."""
        known = self._clients.get(public_key)
        return None if known is None else known[0]

    def refresh(self) -> None:
        """Read changed files again. The list stays as it is if they cannot be read now."""
        began = time.monotonic_ns()
        try:
            stamp = _stamp_of(self._directory)
            files = self._read() if stamp is not None else {}
        except OSError as error:  # e.g. out of descriptors: this must not disconnect clients
            self._stamp = None
            if self._problem != str(error):
                self._problem = str(error)
                log.warning("the list of clients stays as it is: %s", error)
            return
        self._problem = ""
        # A second change within the same clock tick would not change the stamp.
        self._stamp = stamp if stamp is not None and _is_settled(stamp) else None
        self._files = files
        before, self._clients = self._clients, self._clients_in(files)
        ended = time.monotonic_ns()
        self._rest_until = ended + (ended - began) * SHARE_OF_TIME
        if before != self._clients:
            self._changed()

    def _has_changed(self, path: Path, stamp: Stamp | None) -> bool:
        try:
            return stamp is None or _stamp_of(path) != stamp
        except OSError:
            return True

    def _read(self) -> dict[str, _File]:
        """Read every client file; one with an unchanged stamp is not opened. Raises OSError."""
        files: dict[str, _File] = {}
        with os.scandir(self._directory) as entries:
            names = sorted(entry.name for entry in entries if Path(entry.name).suffix == ".toml")
        for name in names:
            known = self._files.get(name)
            try:
                stamp = _stamp_of(self._directory / name) or NO_STAMP
            except OSError as error:
                _raise_if_short(error)
                stamp = NO_STAMP
            if known is None or known.stamp != stamp or not known.is_settled:
                known = self._read_file(self._directory / name, stamp, known)
            files[name] = known
        return files

    @staticmethod
    def _read_file(path: Path, stamp: Stamp, before: _File | None) -> _File:
        is_settled = _is_settled(stamp)
        try:
            text = read_regular(path, MAX_CLIENT_FILE).decode("utf-8")
            entry = parse_client_entry(text, source=path.name)
        except UnicodeDecodeError:
            problem = f"{path.name} is not UTF-8"
        except ConfigError as error:
            problem = str(error)
        except OSError as error:
            _raise_if_short(error)
            problem = str(error)
        else:
            if path.stem == entry.name:
                return _File(stamp, is_settled, entry)
            # Such as a copy that an editor or a synchronisation has made: commands change NAME.toml alone.
            problem = f"{path.name} has the name {entry.name}, whose file is {entry.name}.toml; remove it"
        if before is None or before.entry is not None or before.stamp != stamp:  # warn once per change
            log.warning("a client file is ignored: %s", problem)
        return _File(stamp, is_settled)

    def _clients_in(self, files: dict[str, _File]) -> dict[bytes, tuple[str, str]]:
        clients: dict[bytes, tuple[str, str]] = {}
        self.entries = {}
        for name, file in files.items():
            entry = file.entry
            if entry is None:
                continue
            if len(clients) >= self._limit:
                if not self._is_over_limit:
                    log.warning("more than %d clients: the rest of the list is not used", self._limit)
                self._is_over_limit = True
                return clients
            clients[entry.public_key] = (entry.name, name)
            self.entries[entry.name] = entry
        self._is_over_limit = False
        return clients


def _stamp_of(path: Path) -> Stamp | None:
    """Return the stamp of a file; None if there is no such file. Raises OSError."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _raise_if_short(error: OSError) -> None:
    """Raise ``error`` if it does not concern the file itself. Then the list stays as it is."""
    if error.errno in SHORTAGES:
        raise error


def _is_settled(stamp: Stamp) -> bool:
    return time.time_ns() - stamp[0] > SETTLED_AFTER
