"""The last addresses of the exit's host names, on disk. They are used when no resolver answers."""

from __future__ import annotations

import ipaddress
import json
import logging
import threading
from pathlib import Path

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.record.journal import write_atomically

FILE = "road-addresses.json"

MAX_NAMES = 513
"""Names whose addresses are kept; the oldest is discarded. 16 exits of 32 URLs and a proxy."""

MAX_ADDRESSES = 16
"""The most addresses of one name that are kept."""

MAX_FILE = 1024 * 1024
"""The most bytes of the file that are read."""

log = logging.getLogger(__name__)


class AddressMemory:
    """Keeps the addresses of names in a file of ``directory``. A failure causes a warning only."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE
        self._has_warned = False
        self._turn = threading.Lock()

    def load(self, name: str) -> list[str]:
        """Return the last addresses of ``name``; empty if unknown."""
        return self._read().get(name, [])

    def save(self, name: str, addresses: list[str]) -> None:
        """Write the addresses to disk if they have changed."""
        addresses = addresses[:MAX_ADDRESSES]
        with self._turn:  # several names may be found at the same time, each saved by its own thread
            kept = self._read()
            if kept.pop(name, None) == addresses:
                return
            kept[name] = addresses
            for oldest in list(kept)[: max(0, len(kept) - MAX_NAMES)]:
                del kept[oldest]
            try:
                write_atomically(self._path, json.dumps(kept))
            except HostError as error:
                self._warn(str(error))

    def _read(self) -> dict[str, list[str]]:
        try:
            with self._path.open("rb") as file:
                stored = json.loads(file.read(MAX_FILE + 1))
            for name, addresses in dict(stored).items():
                for address in [name, *addresses][1:]:
                    ipaddress.ip_address(address)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, RecursionError) as error:
            self._warn(f"{self._path} cannot be read and starts empty: {error}")
            return {}
        return dict(stored)

    def _warn(self, sentence: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            log.warning("%s", sentence)
