"""The hosts file (hosts(5)), in which every name is looked up first."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

HOSTS = Path("/etc/hosts")

MAX_FILE = 32 * 1024 * 1024
"""The most bytes of the file that are read. A block list has some megabytes."""

MAX_NAMES = 513
"""Names whose results are cached until the file changes."""

_Stamp = tuple[int, int, int]


class HostsFile:
    """Looks up names in ``path``. The file is read again when it has changed."""

    def __init__(self, path: Path = HOSTS) -> None:
        self._path = path
        self._stamp: _Stamp | None = None
        self._found: dict[str, list[str]] = {}

    def addresses(self, name: str) -> list[str]:
        """Return the addresses of ``name``, with their scope if they have one; empty if not listed."""
        wanted = name.rstrip(".").lower()
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                stamp = status.st_mtime_ns, status.st_size, status.st_ino
                if stamp != self._stamp or len(self._found) >= MAX_NAMES:
                    self._stamp = stamp
                    self._found.clear()
                if wanted not in self._found:
                    self._found[wanted] = _addresses_in(file.read(MAX_FILE), wanted)
        except OSError:
            return []
        return self._found[wanted]


def _addresses_in(content: bytes, wanted: str) -> list[str]:
    found = []
    for line in content.decode("utf-8", errors="replace").splitlines():
        if wanted not in line.lower():
            continue  # a cheap test that skips most lines of a long file
        address, *names = line.partition("#")[0].split() or [""]
        if wanted not in (name.rstrip(".").lower() for name in names):
            continue
        try:
            found.append(str(ipaddress.ip_address(address)))
        except ValueError:
            continue
    return list(dict.fromkeys(found))
