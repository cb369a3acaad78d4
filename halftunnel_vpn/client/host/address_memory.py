"""The last addresses of the roads' names, on disk: what is dialled when no resolver answers."""

from __future__ import annotations

import ipaddress
import json
import logging
import threading
from pathlib import Path

from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.record.journal import write_atomically

FILE = "road-addresses.json"

MAX_NAMES = 64
"""Names whose addresses are kept, the oldest is forgotten; a profile has 32 URLs and a proxy."""

MAX_ADDRESSES = 16
"""Addresses of one name that are kept."""

MAX_FILE = 128 * 1024
"""Bytes of the file that are read."""

log = logging.getLogger(__name__)


class AddressMemory:
    """Keeps the addresses of names in a file of ``directory``; one that cannot be used costs a warning."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE
        self._has_warned = False
        self._turn = threading.Lock()

    def load(self, name: str) -> list[str]:
        """The last addresses of ``name``; empty if none are known."""
        return self._read().get(name, [])

    def save(self, name: str, addresses: list[str]) -> None:
        """Put them on disk, if they are others than those that are there."""
        addresses = addresses[:MAX_ADDRESSES]
        with self._turn:  # names are found at the same time, and each is saved by a thread
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
