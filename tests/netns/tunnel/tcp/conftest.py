"""TCP through the real tunnel, with both ends in hand: sockets of the client's kernel and of the target's."""

from __future__ import annotations

import contextlib
import hashlib
import random
import resource
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from lab import Lab
from lab.topology import CLIENT, TARGET, TARGET_ADDRESS, TARGET_ADDRESS6

PATIENCE = 60.0
"""Seconds that a call on a socket may take before the test fails."""

PIECE = 1 << 18
"""Bytes per call of a bulk transfer."""

ADDRESSES = {4: TARGET_ADDRESS, 6: TARGET_ADDRESS6}
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


@pytest.fixture(scope="session", autouse=True)
def many_files() -> None:
    """Thousands of connections have both their ends in this process."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


# --- sockets ----------------------------------------------------------------------------------------


class Ends:
    """Makes the two ends of connections through the tunnel of ``lab``; closes what is open at the end."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._open = contextlib.ExitStack()

    def listen(self, version: int = 4) -> socket.socket:
        """A listening socket on the target."""
        with self._lab.inside(TARGET):
            listener = socket.create_server((ADDRESSES[version], 0), family=FAMILIES[version], backlog=4096)
        return self._kept(listener)

    def unconnected(self, version: int = 4) -> socket.socket:
        """A socket of the client."""
        with self._lab.inside(CLIENT):
            return self._kept(socket.socket(FAMILIES[version], socket.SOCK_STREAM))

    def connect(self, listener: socket.socket) -> socket.socket:
        """A connection of the client to a listening socket of the target."""
        client = self.unconnected(4 if listener.family == socket.AF_INET else 6)
        client.connect(listener.getsockname())
        return client

    def accept(self, listener: socket.socket) -> socket.socket:
        """The target's end of a connection."""
        return self._kept(listener.accept()[0])

    def pair(self, version: int = 4) -> tuple[socket.socket, socket.socket]:
        """Both ends of a connection: the client's, the target's."""
        listener = self.listen(version)
        client = self.connect(listener)
        return client, self.accept(listener)

    def close(self) -> None:
        """Close everything. Threads that still wait for a socket get an error."""
        self._open.close()

    def _kept(self, sock: socket.socket) -> socket.socket:
        sock.settimeout(PATIENCE)
        self._open.enter_context(sock)
        self._open.callback(_shut, sock)
        return sock


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it is closed, or was never connected
        sock.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def ends_in(bulk: Bulk) -> Iterator[Callable[[Lab], Ends]]:
    """Makes the ends of connections in another lab than the shared one."""
    with contextlib.ExitStack() as made:

        def make(lab: Lab) -> Ends:
            ends = Ends(lab)
            made.callback(ends.close)
            return ends

        yield make


@pytest.fixture
def ends(rig: Any, ends_in: Callable[[Lab], Ends]) -> Ends:
    """Both ends of connections through the shared tunnel."""
    return ends_in(rig.lab)


@pytest.fixture
def reset() -> Callable[[socket.socket], None]:
    """Closes a socket so that its kernel sends RST in place of FIN."""

    def close(sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()

    return close


# --- bulk -------------------------------------------------------------------------------------------


class Bulk:
    """Long transfers in threads, hashed at both ends. What is sent comes from memory and does not repeat
    within any window."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        self._block = memoryview(random.Random(77).randbytes(1 << 24))

    def send(self, sock: socket.socket, size: int, enough: threading.Event | None = None) -> Future[str]:
        """Send ``size`` bytes, more until ``enough`` is set, then FIN; the future holds their hash."""

        def work() -> str:
            digest = hashlib.sha256()
            sent = 0
            while sent < size or not (enough is None or enough.is_set()):
                offset = sent // PIECE * 1_000_003 % (len(self._block) - PIECE)
                piece = self._block[offset : offset + (min(PIECE, size - sent) if sent < size else PIECE)]
                sock.sendall(piece)
                digest.update(piece)
                sent += len(piece)
            sock.shutdown(socket.SHUT_WR)
            return digest.hexdigest()

        return self._threads.submit(work)

    def receive(self, sock: socket.socket, size: int | None = None, digest: Any = None) -> Future[str]:
        """Receive until FIN, or ``size`` bytes; the future holds their hash, begun in ``digest``."""
        digest = digest or hashlib.sha256()

        def work() -> str:
            buffer = memoryview(bytearray(PIECE))
            left = size if size is not None else 1 << 60
            while left and (count := sock.recv_into(buffer, min(left, PIECE))):
                digest.update(buffer[:count])
                left -= count
            return digest.hexdigest()

        return self._threads.submit(work)


@pytest.fixture
def bulk() -> Iterator[Bulk]:
    with ThreadPoolExecutor(max_workers=32) as threads:
        yield Bulk(threads)


# --- processes --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Usage:
    """What a process holds: resident memory in bytes, and open files."""

    memory: int
    files: int


@pytest.fixture
def usage_of() -> Callable[[Any], Usage]:
    """Tells what a process holds now."""

    def look(process: Any) -> Usage:
        status = Path("/proc", str(process.pid), "status").read_text()
        resident = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        files = len(list(Path("/proc", str(process.pid), "fd").iterdir()))
        return Usage(int(resident.split()[1]) * 1024, files)

    return look
