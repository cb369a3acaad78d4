"""Programs that take another path than the rest of the host, identified by their control group (v2).

Each list of programs is a cgroup of ours. A BPF program of four instructions is attached to it. It marks
every new socket before the socket looks up a route. So the source address, IPv6 and errors of the socket are
those of its path. A mark that nftables sets on packets would come too late for that. See bpf(2), cgroups(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from pathlib import Path
from typing import Final

from halftunnel_vpn.errors import HostError

EXCLUDED: Final = "excluded"
"""Programs that stay outside the tunnel."""

ONLY: Final = "only"
"""The programs that use the tunnel, if the profile says that only chosen programs do."""

LISTS: Final = (EXCLUDED, ONLY)

_SYSCALLS: Final = {
    "x86_64": 321,
    "aarch64": 280,
    "riscv64": 280,
    "armv7l": 386,
    "ppc64le": 361,
    "s390x": 351,
}
_PROG_LOAD: Final = 5
_PROG_ATTACH: Final = 8
_PROG_TYPE_CGROUP_SOCK: Final = 9
_CGROUP_INET_SOCK_CREATE: Final = 2
_SOCK_MARK_OFFSET: Final = 16  # of `mark` in struct bpf_sock


class ProgramLists:
    """The cgroups of the tunnel of this network namespace. Calls raise HostError with one sentence.

    ``marks`` maps each list to the mark of its sockets.
    """

    def __init__(self, marks: dict[str, int]) -> None:
        self._marks = marks

    def adopt(self, pid: int, name: str) -> None:
        """Move a process, and with it its future children, to the list ``name``."""
        group = _root() / name
        self._make(group)
        try:
            (group / "cgroup.procs").write_text(str(pid))
        except OSError as error:
            raise HostError(
                f"The process {pid} could not be moved to the control group {group} ({error.strerror})."
            ) from error

    def prepare(self, name: str) -> None:
        """Create the cgroup of a list, so that the packet filter can name it."""
        self._make(group_of(name))

    def resume(self) -> None:
        """Attach the marks again for programs that were listed during an earlier tunnel."""
        with contextlib.suppress(HostError):  # a host without cgroups of version 2 has no lists
            for name in self._marks:
                group = _root() / name
                if group.is_dir():
                    self._make(group)

    def remove(self) -> None:
        """Remove the cgroups that contain no program."""
        with contextlib.suppress(HostError):
            root = _root()
            for group in (*(root / name for name in LISTS), root):
                with contextlib.suppress(OSError):  # it does not exist, or contains programs and may stay
                    group.rmdir()

    def _make(self, group: Path) -> None:
        try:
            group.mkdir(parents=True, exist_ok=True)
            _mark_sockets(group, self._marks[group.name])
        except OSError as error:
            raise HostError(
                f"Programs cannot be distinguished on this host: {group} cannot be set up "
                f"({error.strerror}); it needs control groups of version 2 and the capability BPF."
            ) from error


def group_of(name: str) -> Path:
    """Return the directory of a list's cgroup. Raises HostError on a host without cgroups of version 2."""
    return _root() / name


def _root() -> Path:
    """Return the parent directory of our cgroups, which differs between network namespaces."""
    inode = os.stat("/proc/thread-self/ns/net").st_ino
    return _mount_point() / f"halftunnel.{inode}"


def _mount_point() -> Path:
    """Return the mount point of control groups version 2. Raises HostError if there is none."""
    with open("/proc/thread-self/mountinfo", errors="surrogateescape") as mounts:
        for line in mounts:
            before, _, after = line.partition(" - ")
            if after.split()[:1] == ["cgroup2"]:
                return Path(before.split()[4])
    raise HostError("This host has no control groups of version 2, which are needed to distinguish programs.")


def _mark_sockets(group: Path, mark: int) -> None:
    """Make the kernel mark new sockets of ``group``. Replaces an attached program. Raises OSError."""
    instructions = b"".join(
        (
            _instruction(0xB7, destination=2, immediate=mark),  # r2 = mark
            _instruction(0x63, destination=1, source=2, offset=_SOCK_MARK_OFFSET),  # r1->mark = r2
            _instruction(0xB7, destination=0, immediate=1),  # r0 = 1: permit the socket
            _instruction(0x95),  # return r0
        )
    )
    code = ctypes.create_string_buffer(instructions, len(instructions))
    licence = ctypes.create_string_buffer(b"MIT")
    program = _bpf(
        _PROG_LOAD,
        struct.pack(
            "=IIQQIIQII16sII",
            _PROG_TYPE_CGROUP_SOCK,
            len(instructions) // 8,
            ctypes.addressof(code),
            ctypes.addressof(licence),
            0, 0, 0, 0, 0,  # no log of the verifier, no version, no flags
            b"halftunnel",
            0,
            _CGROUP_INET_SOCK_CREATE,
        ),
    )  # fmt: skip
    try:
        directory = os.open(group, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _bpf(_PROG_ATTACH, struct.pack("=IIII", directory, program, _CGROUP_INET_SOCK_CREATE, 0))
        finally:
            os.close(directory)
    finally:
        os.close(program)  # the cgroup holds a reference


def _instruction(
    code: int, *, destination: int = 0, source: int = 0, offset: int = 0, immediate: int = 0
) -> bytes:
    return struct.pack("=BBhI", code, destination | source << 4, offset, immediate)


def _bpf(command: int, attributes: bytes) -> int:
    number = _SYSCALLS.get(os.uname().machine)
    if number is None:
        raise OSError(0, "this kind of processor is not known")
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    libc = ctypes.CDLL(None, use_errno=True)
    result: int = libc.syscall(number, command, buffer, len(attributes))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
