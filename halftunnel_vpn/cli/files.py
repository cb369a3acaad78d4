"""Files on disk, with failures that say what to do."""

from __future__ import annotations

import os
from pathlib import Path

from halftunnel_vpn.errors import ConfigError, HostError


def write_new(path: Path, content: str | bytes, *, mode: int = 0o600) -> None:
    """Write a file that must not exist yet; it appears whole or not at all.

    As root, it is given to the owner of its directory: the exit runs as somebody else.
    Raises ConfigError when it exists.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            _give_to_owner_of(path.parent, draft)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        raise ConfigError(f"{path} exists already, and nothing is overwritten; remove it first") from None
    except OSError as error:
        raise HostError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)


def make_private_directory(path: Path) -> None:
    """Make ``path``, for its owner alone; one that is there is left as it is."""
    if path.is_dir():
        return
    try:
        path.mkdir(mode=0o700, parents=True)
        _give_to_owner_of(path.parent, path)
    except OSError as error:
        raise HostError(f"the directory {path} cannot be made: {error.strerror}") from error


def _give_to_owner_of(directory: Path, path: Path) -> None:
    if os.geteuid() == 0:
        owner = directory.stat()
        os.chown(path, owner.st_uid, owner.st_gid)
