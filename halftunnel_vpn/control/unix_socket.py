"""A Unix socket that exactly one process serves and only its owner, or also one group, may use."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path

from halftunnel_vpn.errors import HostError

MAX_PATH = 107
"""The most bytes of a Unix socket's path (sockaddr_un, unix(7))."""


CONTROL = "control socket"


def claim(path: str, *, group: int | None = None, purpose: str = CONTROL) -> socket.socket:
    """Return a bound socket at ``path``, not yet listening: mode 0600, or 0660 for the group ``group``.

    A socket that a dead process left is replaced. ``purpose`` names the socket in messages.

    Raises HostError when another process serves it, or when it cannot be created.
    """
    if len(os.fsencode(path)) > MAX_PATH:
        raise HostError(
            f"the path of the {purpose} is longer than {MAX_PATH} bytes: {path}; choose a shorter one"
        )
    try:
        Path(path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _clear(path, purpose)
        claimed = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            claimed.bind(path)
            # Nobody can connect before the mode is set: the socket does not listen yet.
            os.chmod(path, 0o600)
            if group is not None:
                os.chown(path, -1, group)
                os.chmod(path, 0o660)  # the group may command the daemon  # nosec B103
        except OSError:
            claimed.close()
            raise
    except OSError as error:
        raise HostError(
            f"cannot make the {purpose} {path}: {error.strerror}; "
            + ("run this as root" if purpose == CONTROL else "choose a directory that you may write to")
        ) from error
    return claimed


def release(path: str) -> None:
    """Remove the socket."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _clear(path: str, purpose: str) -> None:
    """Remove the socket of a dead process at ``path``."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise HostError(f"{path} is in the way of the {purpose} and is not a socket; remove it")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            with contextlib.suppress(BlockingIOError):  # a full queue of a process that hangs: it is alive
                probe.connect(path)
        except ConnectionRefusedError:
            release(path)
        else:
            if purpose != CONTROL:
                raise HostError(f"another program answers at {path}; stop it, or choose another path")
            raise HostError(
                f"another htvpn is running and answers at {path}; stop it with 'htvpn down', or the daemon "
                "with 'systemctl stop halftunnel.socket halftunnel'"
            )
