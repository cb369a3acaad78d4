"""Which daemon has this host: a lock in the state directory, which the kernel takes back when that dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

from halftunnel_vpn.errors import HostError

LOCK: Final = "daemon.lock"


def claim(state_dir: Path) -> int:
    """Take the lock; the descriptor that holds it. HostError when another has it, or it cannot be made."""
    path = state_dir / LOCK
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HostError(
            f"The state directory {state_dir} cannot be written ({error.strerror}): run this as root, or "
            "name another one in STATE_DIRECTORY."
        ) from error
    if not _lock(descriptor):
        os.close(descriptor)
        raise HostError("Another Half-Tunnel daemon runs on this host: stop that one first.")
    return descriptor


def is_claimed(state_dir: Path) -> bool:
    """Whether a daemon runs that keeps its state there. HostError when this user may not ask."""
    path = state_dir / LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise HostError(f"The file {path} cannot be read ({error.strerror}): run this as root.") from error
    try:
        return not _lock(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
