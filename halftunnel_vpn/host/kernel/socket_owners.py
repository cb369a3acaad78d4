"""Which process owns a socket: its inode in /proc/PID/fd (proc(5)), and the name of the program."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from halftunnel_vpn.host.kernel.socket_diag import MAX_SOCKETS, SocketEntry, sockets

MAX_PROCESSES: Final = 4096
"""Processes whose descriptors are read. Sockets of further ones have no known program."""

MAX_DESCRIPTORS: Final = 200_000
"""Descriptors that are read in one search."""

MAX_NAME: Final = 64
"""Characters of a program's name."""

SEARCH_INTERVAL: Final = 1.0
"""Seconds between two searches through /proc, however often somebody asks."""

_PROC: Final = Path("/proc")


class LocalEnd(NamedTuple):
    """The end of a flow at this host. ``remote`` is empty for UDP and ICMP, whose port is the identifier."""

    protocol: int
    local: bytes
    port: int
    remote: bytes = b""
    remote_port: int = 0


class Owner(NamedTuple):
    """Who owns a socket. ``sent`` and ``received`` are bytes of its TCP connection."""

    program: str | None
    """The name of the program, without its arguments; None if no process was found."""
    pid: int | None
    user: int
    sent: int | None
    received: int | None


class _Place(NamedTuple):
    """Where a socket was found: process and name of the descriptor."""

    pid: int
    descriptor: str


class SocketOwners:
    """Finds the owners of sockets. It remembers where each inode was found that was asked for last."""

    def __init__(self, proc: Path = _PROC) -> None:
        self._proc = proc
        self._places: dict[int, _Place] = {}
        self._searched = -SEARCH_INTERVAL

    def owners(self, ends: Iterable[LocalEnd]) -> dict[LocalEnd, Owner]:
        """Return the owners of those ``ends`` that belong to a socket of this network namespace.

        This blocks while it reads /proc. Raises HostError if the kernel does not list its sockets.
        """
        wanted = set(ends)
        found: dict[LocalEnd, SocketEntry] = {}
        if any(end.protocol == socket.IPPROTO_TCP for end in wanted):
            for entry in sockets(socket.IPPROTO_TCP):
                end = LocalEnd(socket.IPPROTO_TCP, *entry[:4])
                if end in wanted:
                    found[end] = entry
        if any(end.protocol == socket.IPPROTO_UDP for end in wanted):
            found |= _matching(wanted, sockets(socket.IPPROTO_UDP), socket.IPPROTO_UDP)
        if any(end.protocol == socket.IPPROTO_ICMP for end in wanted):
            found |= _matching(wanted, _ping_sockets(), socket.IPPROTO_ICMP)
        pids = self._processes({entry.inode for entry in found.values()})
        return {end: self._owner(entry, pids) for end, entry in found.items()}

    def _owner(self, entry: SocketEntry, pids: dict[int, int]) -> Owner:
        pid = pids.get(entry.inode)
        program = None if pid is None else self._name_of(pid)
        return Owner(program, None if program is None else pid, entry.user, entry.sent, entry.received)

    def _processes(self, inodes: set[int]) -> dict[int, int]:
        """Return the process of each inode. Search /proc only for inodes that are new, or have moved.

        A process may pass a socket to another one and end, and its number may be given to a third one.
        """
        known = {
            inode: place
            for inode, place in self._places.items()
            if inode in inodes and self._target(place) == _socket_name(inode)
        }
        missing = inodes - known.keys() - {0}
        now = time.monotonic()
        if missing and now - self._searched >= SEARCH_INTERVAL:
            self._searched = now
            known |= self._search(missing)
        self._places = known
        return {inode: place.pid for inode, place in known.items()}

    def _search(self, inodes: set[int]) -> dict[int, _Place]:
        found: dict[int, _Place] = {}
        wanted = {_socket_name(inode): inode for inode in inodes}
        left = MAX_DESCRIPTORS
        for pid in self._pids_of_host():
            for place in self._descriptors(pid):
                left -= 1
                inode = wanted.get(self._target(place))
                if inode is not None:
                    found.setdefault(inode, place)
            if left <= 0 or len(found) == len(inodes):
                break
        return found

    def _pids_of_host(self) -> list[int]:
        """Return process numbers, the youngest first: long-lived ones are remembered."""
        numbers = sorted((int(name) for name in os.listdir(self._proc) if name.isdecimal()), reverse=True)
        return numbers[:MAX_PROCESSES]

    def _descriptors(self, pid: int) -> list[_Place]:
        try:
            return [_Place(pid, name) for name in os.listdir(self._proc / str(pid) / "fd")]
        except OSError:
            return []  # the process has ended, or this user may not see it

    def _target(self, place: _Place) -> str:
        """Return what a descriptor leads to; empty once it is closed."""
        try:
            return os.readlink(f"{self._proc}/{place.pid}/fd/{place.descriptor}")
        except OSError:
            return ""

    def _name_of(self, pid: int) -> str | None:
        try:
            name = (self._proc / str(pid) / "comm").read_text(errors="replace")
        except OSError:
            return None
        # A program chooses its name itself. Control characters must not reach a terminal.
        return "".join(c if c.isprintable() else "?" for c in name.rstrip("\n"))[:MAX_NAME]


def _socket_name(inode: int) -> str:
    """Return the target of a descriptor of a socket (proc(5))."""
    return f"socket:[{inode}]"


def _matching(
    wanted: set[LocalEnd], entries: Iterable[SocketEntry], protocol: int
) -> dict[LocalEnd, SocketEntry]:
    """Return the datagram sockets of ``wanted``: bound to its address, otherwise to any address."""
    found: dict[LocalEnd, SocketEntry] = {}
    by_port: dict[int, list[LocalEnd]] = {}
    for end in wanted:
        if end.protocol == protocol:
            by_port.setdefault(end.port, []).append(end)
    for entry in entries:
        for end in by_port.get(entry.port, ()):
            if entry.local == end.local or (not any(entry.local) and end not in found):
                found[end] = entry
    return found


def _ping_sockets() -> Iterator[SocketEntry]:
    """Yield the ICMP sockets of this network namespace. sock_diag does not list them (icmp(7))."""
    for name, length in (("icmp", 4), ("icmp6", 16)):
        try:
            lines = Path("/proc/thread-self/net", name).read_text().splitlines()[1:]
        except OSError:
            continue  # the kernel lacks this address family
        for line in lines[:MAX_SOCKETS]:
            fields = line.split()
            address, _, identifier = fields[1].partition(":")
            words = [int(address[at : at + 8], 16) for at in range(0, 2 * length, 8)]
            local = struct.pack(f"={len(words)}I", *words)
            user, inode = int(fields[7]), int(fields[9])
            yield SocketEntry(local, int(identifier, 16), b"", 0, user, inode, None, None)
