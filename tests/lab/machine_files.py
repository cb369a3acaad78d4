"""The files of a machine, to compare before and after."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

LIVING = (
    "var/log", "var/lib/systemd", "var/lib/private", "var/cache/ldconfig", "var/tmp", "etc/.pwd.lock",
    "etc/.updated", "var/.updated", "etc/machine-id", "var/lib/dbus",
    "var/backups", "var/cache/apt", "var/lib/apt", "var/cache/man", "var/lib/logrotate",
)  # fmt: skip
"""What systemd writes while it runs, and Debian's daily timers, which start at midnight."""


def files_of(root: Path) -> dict[str, str]:
    """Every file of a machine but what is always written: path to kind, mode, owner and contents."""
    found = {}
    for top in ("etc", "usr", "opt", "var", "root", "home"):
        for directory, names, files in os.walk(root / top):
            where = os.path.relpath(directory, root)
            names[:] = [name for name in names if f"{where}/{name}" not in LIVING and name != "__pycache__"]
            for name in (*files, *names):
                path = Path(directory, name)
                inside = f"{where}/{name}"
                if inside in LIVING or (where == "etc" and name.endswith("-")):
                    continue  # shadow's backups
                info = path.lstat()
                kind = f"{stat.filemode(info.st_mode)} {info.st_uid}:{info.st_gid}"
                if stat.S_ISLNK(info.st_mode):
                    kind += f" -> {os.readlink(path)}"
                elif stat.S_ISREG(info.st_mode):
                    kind += f" {hashlib.sha256(path.read_bytes()).hexdigest()}"
                found[inside] = kind
    return found
