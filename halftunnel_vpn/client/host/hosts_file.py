"""The hosts file (hosts(5)): the first place in which a name is looked for, every time."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

HOSTS = Path("/etc/hosts")

MAX_FILE = 32 * 1024 * 1024
"""Bytes of the file that are read; a list of advertisers has some megabytes."""

MAX_NAMES = 64
"""Names whose lines are kept until the file changes."""

_Stamp = tuple[int, int, int]


class HostsFile:
    """Finds names in ``path``; reads it again whenever it has changed."""

    def __init__(self, path: Path = HOSTS) -> None:
        self._path = path
        self._stamp: _Stamp | None = None
        self._found: dict[str, list[str]] = {}

    def addresses(self, name: str) -> list[str]:
        """The addresses of ``name``, with their scope if they have one; empty when the file does not say."""
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
            continue  # most lines of a long file, at little cost
        address, *names = line.partition("#")[0].split() or [""]
        if wanted not in (name.rstrip(".").lower() for name in names):
            continue
        try:
            found.append(str(ipaddress.ip_address(address)))
        except ValueError:
            continue
    return list(dict.fromkeys(found))
