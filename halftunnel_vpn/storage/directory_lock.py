"""A lock on a directory, for programs that read a file there, change it, and write it back."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import time
from collections.abc import Iterator
from typing import Final

_ATTEMPT_INTERVAL: Final = 0.02
"""Seconds between two attempts to take the lock."""

_NOT_LOCKABLE: Final = (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Errors of flock(2) on file systems that lock no directories, such as NFS. There is no lock then."""


@contextlib.contextmanager
def locked(directory: int, *, wait: float) -> Iterator[None]:
    """Hold the lock on the directory with the descriptor ``directory`` (flock(2)).

    Raises BlockingIOError if another program holds it for ``wait`` seconds, OSError if it cannot be taken.
    """
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_ATTEMPT_INTERVAL)
        except OSError as error:
            if error.errno not in _NOT_LOCKABLE:
                raise
            break
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(directory, fcntl.LOCK_UN)
