"""A directory of another user, and the files that root writes there.

An exit runs without privileges and owns its directory. A compromised exit can put a symbolic link, or another
directory, wherever root is about to write. So root does not use its own rights there. The directory is opened
once. Every access is relative to that descriptor and uses the rights of the directory's owner.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from halftunnel_vpn.control import text_file
from halftunnel_vpn.errors import ConfigError, HostError
from halftunnel_vpn.storage import atomic_file, directory_lock

ROOT = 0

LOCK_TIMEOUT = 5.0
"""Seconds that a command waits for another one that changes files of the same directory."""

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class OwnedDirectory:
    """An open directory. Names are relative to it.

    Every method raises HostError or ConfigError with one sentence. Close it, or use it as a context manager.
    """

    def __init__(
        self, path: Path, descriptor: int, owner: tuple[int, int] | None, wait: float = LOCK_TIMEOUT
    ) -> None:
        self.path = path
        # Seconds that a change waits for another program.
        self._wait = wait
        self._descriptor = descriptor
        # Whose rights are used: user and group; None for those of this process.
        self._owner = owner

    @classmethod
    def open(cls, path: Path, *, missing: str, own_rights: bool = False) -> OwnedDirectory:
        """Open an existing directory. ``missing`` is the sentence of the ConfigError if there is none.

        ``own_rights``: never act as its owner, and wait for no other program. An exit does so: a change of
        user concerns all its threads, and its event loop waits for nobody.
        """
        try:
            descriptor = os.open(path, _OPEN_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            raise ConfigError(missing) from None
        except OSError as error:
            raise HostError(f"{path} cannot be read: {error.strerror}") from error
        if own_rights:
            return cls(path, descriptor, None, wait=0.0)
        return cls(path, descriptor, _owner_of(descriptor))

    @classmethod
    def make(cls, path: Path) -> OwnedDirectory:
        """Open a directory. Create it and its parents if missing, accessible to their owner only."""
        missing: list[str] = []
        existing = path.absolute()
        while not existing.exists() and existing != existing.parent:
            missing.insert(0, existing.name)
            existing = existing.parent
        directory = cls.open(existing, missing=f"{existing} is not a directory; choose another place")
        for name in missing:
            with directory:
                directory = directory.subdirectory(name, make=True)
        directory.path = path
        return directory

    def __enter__(self) -> OwnedDirectory:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the directory. Call it at most once."""
        os.close(self._descriptor)

    def subdirectory(self, name: str, *, make: bool = False) -> OwnedDirectory:
        """Open the directory ``name``. With ``make``, create it if missing."""
        path = self.path / name
        try:
            with self._rights():
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(name, 0o700, dir_fd=self._descriptor)
                descriptor = os.open(name, _OPEN_DIRECTORY, dir_fd=self._descriptor)
        except OSError as error:
            verb = "made" if make else "read"
            raise HostError(f"the directory {path} cannot be {verb}: {error.strerror}") from error
        # Rights are only ever given up. Nothing that another user's directory leads to is used as root.
        owner = self._owner
        if owner is not None and owner[0] == ROOT:
            owner = _owner_of(descriptor)
        return OwnedDirectory(path, descriptor, owner, self._wait)

    def exists(self, name: str) -> bool:
        """Return whether a file or a link ``name`` exists."""
        try:
            with self._rights():
                os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise HostError(f"{self.path / name} cannot be read: {error.strerror}") from error
        return True

    def names(self, suffix: str) -> list[str]:
        """Return the names of the files that end in ``suffix``, without the suffix, sorted."""
        with self._rights():
            found = os.listdir(self._descriptor)
        return sorted(name.removesuffix(suffix) for name in found if name.endswith(suffix))

    def read_text(self, name: str, *, missing: str | None = None) -> str:
        """Return the text of the file ``name``, which may be an absolute path. See text_file.read_text."""
        with self._rights() as reader:
            return text_file.read_text(
                self.path / name,
                missing=missing,
                reader=reader,
                opener=lambda _, flags: os.open(name, flags, dir_fd=self._descriptor),
            )

    def write_new(self, name: str, content: str | bytes) -> None:
        """Create the file ``name`` atomically, for its owner only. Raises ConfigError if it exists."""
        try:
            with self._rights():
                atomic_file.create_at(self._descriptor, name, content)
        except FileExistsError:
            raise ConfigError(
                f"{self.path / name} exists already, and nothing is overwritten; remove it first"
            ) from None
        except OSError as error:
            raise HostError(f"{self.path / name} cannot be written: {error.strerror}") from error

    def replace(self, name: str, content: str | bytes) -> None:
        """Create or replace the file ``name`` atomically, for its owner only."""
        try:
            with self._rights():
                atomic_file.replace_at(self._descriptor, name, content)
        except OSError as error:
            raise HostError(f"{self.path / name} cannot be written: {error.strerror}") from error

    def change(self, name: str, changed: Callable[[str], str], *, missing: str) -> None:
        """Replace the file ``name`` by what ``changed`` returns for its text.

        No other program can change or remove it with this class in the meantime. Raises ConfigError with the
        sentence ``missing`` if the file does not exist.
        """
        with self._locked():
            self.replace(name, changed(self.read_text(name, missing=missing)))

    def remove(self, name: str) -> bool:
        """Remove the file ``name``; return False if there is none."""
        with self._locked():
            return self._remove(name)

    def _remove(self, name: str) -> bool:
        try:
            with self._rights():
                os.unlink(name, dir_fd=self._descriptor)
                os.fsync(self._descriptor)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise HostError(f"{self.path / name} cannot be removed: {error.strerror}") from error
        return True

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(directory_lock.locked(self._descriptor, wait=self._wait))
            except BlockingIOError:
                raise HostError(f"another program changes {self.path} at this moment; try again") from None
            except OSError as error:
                raise HostError(f"{self.path} cannot be locked: {error.strerror}") from error
            yield

    @contextlib.contextmanager
    def _rights(self) -> Iterator[str]:
        """As root, act as the owner of the directory. Yield the actor as the end of a sentence."""
        user, group = self._owner or (ROOT, ROOT)
        if os.geteuid() != ROOT or user == ROOT:
            yield "this user; run this as its owner or as root"
            return
        own_group, own_groups = os.getegid(), os.getgroups()
        try:
            try:
                os.setgroups([group])
                os.setegid(group)
                os.seteuid(user)
            except OSError as error:
                raise HostError(
                    f"{self.path} belongs to user {user}, whose rights this process cannot take "
                    f"({error.strerror}); run this as that user"
                ) from error
            yield f"user {user}, to whom {self.path} belongs; give it to that user"
        finally:
            os.seteuid(ROOT)
            os.setegid(own_group)
            os.setgroups(own_groups)


def _owner_of(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_uid, status.st_gid
