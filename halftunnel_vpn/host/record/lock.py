"""The one lock for every process that writes the nft table, the routing rules or the state files.

It consists of two file locks. One is in the state directory, because its files must have one writer. The
other is a file of the network namespace in ``RUN_DIRECTORY``, because a namespace has one table, whatever the
state directory is. They are open file description locks (fcntl(2)). The kernel releases them when the holder
dies, and they can be queried without being taken.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import struct
from enum import Enum
from pathlib import Path
from typing import Final, NamedTuple

from halftunnel_vpn.errors import HostError

LOCK: Final = "host.lock"

RUN_DIRECTORY: Final = Path("/run")
"""Only root may write here. So no other user can hold the lock and keep the tunnel down."""

MAX_RECORD: Final = 4096
"""Bytes that a holder writes about itself."""


class Role(Enum):
    """What the holder of the lock is doing."""

    DAEMON = "daemon"
    FOREGROUND = "foreground"
    REPAIR = "repair"
    LOCKDOWN = "lockdown"


class Holder(NamedTuple):
    """The holder of the lock, as far as its file says: it may not have been written yet."""

    role: Role | None = None
    pid: int | None = None
    socket: str | None = None
    """The control socket of the holder."""

    def sentence(self) -> str:
        """Return who it is and what to do about it, in one sentence."""
        process = "" if self.pid is None else f" (process {self.pid})"
        where = "" if self.socket is None else f" --socket {shlex.quote(self.socket)}"
        if self.role is Role.DAEMON:
            return (
                f"The Half-Tunnel daemon{process} manages this host, connected or not: run `htvpn up` "
                "without --foreground, or stop it with `systemctl stop halftunnel.socket halftunnel`."
            )
        if self.role is Role.FOREGROUND:
            return (
                f"Another client, `htvpn up --foreground`{process}, manages this host: run "
                f"`htvpn down{where}` first."
            )
        return f"Another htvpn process{process} is changing this host: try again when it has ended."


class HostBusy(HostError):
    """Another process holds the lock."""

    def __init__(self, holder: Holder) -> None:
        super().__init__(holder.sentence())
        self.holder = holder


class HostLock:
    """The lock. It is held from construction until :meth:`release`, or as a context manager.

    Raises HostBusy if another process holds it, HostError if the state directory cannot be written.
    """

    def __init__(
        self, state_dir: Path, role: Role, *, socket: str | None = None, run_dir: Path = RUN_DIRECTORY
    ) -> None:
        self._held: list[tuple[Path, int]] = []
        self._record = json.dumps({"role": role.value, "pid": os.getpid(), "socket": socket}).encode()
        try:
            self._take(_in_state(state_dir), state_dir)
            # Without a writable /run (another user, a sandboxed unit) the lock in the state directory must
            # suffice.
            with contextlib.suppress(_NotWritable):
                self._take(_of_namespace(run_dir), state_dir)
        except _NotWritable as error:
            raise HostError(
                f"The state directory {state_dir} cannot be written ({error}): run this as root, or "
                "name another one in STATE_DIRECTORY."
            ) from error
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Release the lock. The files stay, because removing one would split the lock."""
        for _, descriptor in reversed(self._held):
            os.close(descriptor)
        self._held.clear()

    def __enter__(self) -> HostLock:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.release()

    def _take(self, path: Path, state_dir: Path) -> None:
        try:
            if path.parent == state_dir:
                state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise _NotWritable(error.strerror) from error
        if not _lock(descriptor):
            holder = _read(descriptor)
            os.close(descriptor)
            raise HostBusy(holder)
        self._held.append((path, descriptor))
        with contextlib.suppress(OSError):  # on a full disk the lock holds without a name in its file
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, self._record, 0)


def holder_of(state_dir: Path, *, run_dir: Path = RUN_DIRECTORY) -> Holder | None:
    """Return who holds the lock; None if it is free. Raises HostError if this user may not query it."""
    for path in (_in_state(state_dir), _of_namespace(run_dir)):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise HostError(
                f"The file {path} cannot be read ({error.strerror}): run this as root."
            ) from error
        try:
            if _is_locked(descriptor):
                return _read(descriptor)
        finally:
            os.close(descriptor)
    return None


class _NotWritable(Exception):
    """A lock file cannot be created."""


def _in_state(state_dir: Path) -> Path:
    return state_dir / LOCK


def _of_namespace(run_dir: Path) -> Path:
    return run_dir / f"halftunnel-{os.stat('/proc/thread-self/ns/net').st_ino}.lock"


_FLOCK: Final = "hhqqi"
"""``struct flock``: type, whence, start, length (0: to the end), process."""


def _lock(descriptor: int) -> bool:
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except BlockingIOError:
        return False
    return True


def _is_locked(descriptor: int) -> bool:
    query = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, query)
    return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)


def _read(descriptor: int) -> Holder:
    try:
        record = json.loads(os.pread(descriptor, MAX_RECORD, 0))
        return Holder(Role(record["role"]), int(record["pid"]), record["socket"])
    except (OSError, ValueError, TypeError, KeyError):
        return Holder()
