"""Watches one file for changes, by inotify(7). The standard library has no binding."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from pathlib import Path
from typing import Final

from halftunnel_vpn.errors import HostError

READ_SIZE: Final = 16384
"""Bytes of events read at one time."""

_MODIFY: Final = 0x2
_ATTRIB: Final = 0x4
_CLOSE_WRITE: Final = 0x8
_MOVED_TO: Final = 0x80
_MOVED_FROM: Final = 0x40
_CREATE: Final = 0x100
_DELETE: Final = 0x200
_DELETE_SELF: Final = 0x400
_MOVE_SELF: Final = 0x800

_OF_THE_FILE: Final = _CLOSE_WRITE | _MODIFY | _ATTRIB | _DELETE_SELF | _MOVE_SELF
_OF_ITS_DIRECTORY: Final = _CREATE | _DELETE | _MOVED_TO | _MOVED_FROM

_EVENT: Final = struct.Struct("iIII")  # struct inotify_event, without its name


class FileWatch:
    """Watches ``path``, the target of its link, and both directories, in which the file may be replaced.

    ``fd`` is readable when something happened. :meth:`changed` then returns whether it concerned the file.
    Raises HostError when the kernel has no inotify instance left.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self.fd < 0:
            reason = os.strerror(ctypes.get_errno())
            raise HostError(f"{path} cannot be watched ({reason}): raise fs.inotify.max_user_instances.")
        self._files: set[int] = set()
        self._watch()

    def changed(self) -> bool:
        """Read the events; return whether one concerned the file. Never block."""
        concerned = False
        names = {self._path.name.encode(), self._path.resolve().name.encode()}
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.fd, READ_SIZE):
                offset = 0
                while offset < len(data):
                    watch, _, _, length = _EVENT.unpack_from(data, offset)
                    offset += _EVENT.size
                    name = data[offset : offset + length].rstrip(b"\0")
                    offset += length
                    concerned = concerned or name in names or watch in self._files
        if concerned:
            self._watch()  # by now it may be another file, or a link to another one
        return concerned

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)

    def _watch(self) -> None:
        self._files.clear()
        for path in {self._path, self._path.resolve()}:
            self._add(path.parent, _OF_ITS_DIRECTORY)
            watch = self._add(path, _OF_THE_FILE)
            if watch >= 0:
                self._files.add(watch)

    def _add(self, path: Path, mask: int) -> int:
        """Return the kernel's number of the watch, the same for a watched file; negative if there is none."""
        number: int = self._libc.inotify_add_watch(self.fd, os.fsencode(path), mask)
        return number
