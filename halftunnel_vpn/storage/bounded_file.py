"""Read a file that another user may control: without blocking, and within a size limit."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

Opener = Callable[[str, int], int]
"""Opens a path with flags, like the ``opener`` of :func:`open`."""


def read_regular(path: Path, limit: int, *, opener: Opener = os.open) -> bytes:
    """Return the content of a regular file. Never block, as opening a pipe or a device could.

    Raises OSError, also if it is not a regular file, or larger than ``limit`` bytes.
    """
    descriptor = opener(str(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "Not a regular file", str(path))
        content = b"" if status.st_size > limit else file.read(limit + 1)
    if status.st_size > limit or len(content) > limit:
        raise OSError(errno.EFBIG, f"More than {limit} bytes", str(path))
    return content
