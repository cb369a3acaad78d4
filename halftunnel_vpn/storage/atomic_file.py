"""Write a file atomically. It is on disk when the call returns.

Every function raises OSError. None follows a symbolic link at the name that it writes: a draft is created
under a name of its own (O_EXCL), and then replaces whatever has the final name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PRIVATE: Final = 0o600
"""Mode of a file that only its owner may read."""

_WITHOUT_LINKS: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)
"""Errors of link(2) on file systems without hard links, such as those of USB sticks."""


def replace_file(path: Path, content: str | bytes, *, mode: int = PRIVATE) -> None:
    """Create or replace the file at ``path``. Text is encoded as UTF-8."""
    with _opened(path.parent) as directory:
        replace_at(directory, path.name, content, mode=mode)


def create_file(path: Path, content: str | bytes, *, mode: int = PRIVATE) -> None:
    """Create the file at ``path``. Raises FileExistsError if something of that name exists."""
    with _opened(path.parent) as directory:
        create_at(directory, path.name, content, mode=mode)


def replace_at(directory: int, name: str, content: str | bytes, *, mode: int = PRIVATE) -> None:
    """Create or replace ``name`` in the directory with the descriptor ``directory``."""
    with _draft(directory, name, content, mode) as draft:
        os.replace(draft, name, src_dir_fd=directory, dst_dir_fd=directory)
    os.fsync(directory)


def create_at(directory: int, name: str, content: str | bytes, *, mode: int = PRIVATE) -> None:
    """Create ``name`` in the directory with the descriptor ``directory``. Raises FileExistsError."""
    with _draft(directory, name, content, mode) as draft:
        try:
            os.link(draft, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _WITHOUT_LINKS:
                raise
            _claim(directory, name, mode)
            os.replace(draft, name, src_dir_fd=directory, dst_dir_fd=directory)
    os.fsync(directory)


def remove_file(path: Path) -> None:
    """Remove the file at ``path``, if it exists."""
    try:
        path.unlink()
    except FileNotFoundError:
        return
    with _opened(path.parent) as directory:
        os.fsync(directory)


@contextlib.contextmanager
def _draft(directory: int, name: str, content: str | bytes, mode: int) -> Iterator[str]:
    """Yield the name of a complete file that is on disk. Remove the draft afterwards if it still exists."""
    draft = f".{name}.{threading.get_native_id()}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(draft, dir_fd=directory)  # left by a killed process with the same number
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(draft, flags, mode, dir_fd=directory), "wb") as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        yield draft
    finally:
        # On a full disk a partial draft would take the last space.
        with contextlib.suppress(OSError):
            os.unlink(draft, dir_fd=directory)


def _claim(directory: int, name: str, mode: int) -> None:
    """Create an empty file ``name``, which the draft then replaces."""
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode, dir_fd=directory))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
