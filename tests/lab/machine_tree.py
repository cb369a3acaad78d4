"""A fresh Debian or Ubuntu tree for machines of the lab, made once and kept; and wheels to install in it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from halftunnel_vpn.errors import HostError

CACHE: Final = Path("/var/cache/halftunnel-lab")
"""What is kept between runs; may be removed at any time."""

PACKAGES: Final = (
    "systemd", "systemd-sysv", "systemd-resolved", "dbus", "libnss-systemd", "nftables", "iproute2",
    "iputils-ping", "python3", "python3-venv", "python3-systemd", "procps", "curl", "ca-certificates",
)  # fmt: skip
"""What a minimal server has, and what scripts/install would have to fetch from the network."""

BUILD_TIMEOUT: Final = 900.0
"""Seconds that making a tree or the wheels may take: both come over the network."""

_KEPT: Final = 2
"""Entries of each kind that are kept: those of other contents are old."""


def tree() -> Path:
    """The tree, made by debootstrap if it is not there yet; copy it, do not change it. Raises HostError."""
    suite = _suite()

    def build(target: Path) -> None:
        target.rmdir()
        _run(["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", suite, str(target)])
        shutil.rmtree(target / "var/cache/apt/archives", ignore_errors=True)
        (target / "etc/hostname").write_text("machine\n")
        # No console to log in at, and nothing that waits for a network.
        for unit in ("console-getty.service", "getty.target", "systemd-networkd-wait-online.service"):
            (target / "etc/systemd/system" / unit).unlink(missing_ok=True)
            (target / "etc/systemd/system" / unit).symlink_to("/dev/null")

    return _cached("tree", f"{suite} {' '.join(PACKAGES)}", build)


def wheels(source: Path, python: str) -> Path:
    """Every wheel that the project in ``source`` needs on ``python`` ("3.11"), kept. Raises HostError."""
    project = tomllib.loads((source / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["speed"]]
    wanted += project["build-system"]["requires"]

    def build(target: Path) -> None:
        _run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
             "--only-binary=:all:", f"--python-version={python}", "--dest", str(target), *wanted]
        )  # fmt: skip

    return _cached("wheels", f"{python} {os.uname().machine} {' '.join(wanted)}", build)


def python_of(root: Path) -> str:
    """The version of Python in a tree: ``3.11``."""
    return os.readlink(root / "usr/bin/python3").removeprefix("python")


def _suite() -> str:
    """This host's own release: its debootstrap knows it, and its mirrors are near."""
    found = re.search(r"^VERSION_CODENAME=(\w+)$", Path("/etc/os-release").read_text(), re.MULTILINE)
    if found is None or shutil.which("debootstrap") is None:
        raise HostError("a machine of the lab needs Debian or Ubuntu, and the package debootstrap")
    return found[1]


def _cached(kind: str, contents: str, build: Callable[[Path], None]) -> Path:
    """The directory of that kind and contents; built aside and renamed, by one process at a time."""
    place = CACHE / f"{kind}-{hashlib.sha256(contents.encode()).hexdigest()[:16]}"
    CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
    with (CACHE / f"{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.is_dir():
            draft = CACHE / f"{kind}.new"
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir()
            build(draft)
            draft.rename(place)
        os.utime(place)
        others = sorted(CACHE.glob(f"{kind}-*"), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in others[_KEPT:]:
            shutil.rmtree(old, ignore_errors=True)
    return place


def _run(argv: list[str]) -> None:
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=BUILD_TIMEOUT, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"`{argv[0]}` cannot be run for a machine of the lab: {error}") from error
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-5:]
        raise HostError(f"`{' '.join(argv[:3])} ...` failed: {' / '.join(last)}")
