"""The legs of a running tunnel as TCP connections, and three ways in which a road ends one.

Nothing stands in the way of the data: a leg is closed or reset by reaching into one of its two sockets
(pidfd_getfd(2)), and swallowed by an nft rule for its addresses and ports alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from halftunnel_vpn.errors import HostError
from lab.namespaces import command
from lab.topology import CLIENT, EXIT, EXIT_A, EXIT_B, Lab
from lab.tunnel import ROAD_PORT

SWALLOWED_FOR: Final = 180
"""Seconds for which a swallowed connection stays so: longer than anybody tries to use it."""

_ESTABLISHED: Final = "01"  # /proc/net/tcp
_PIDFD_GETFD: Final = 438  # the same number on every architecture

_RULES: Final = """\
table inet chaos {{
  set swallowed {{ type ipv4_addr . inet_service; flags timeout; timeout {seconds}s; }}
  chain out {{ type filter hook output priority -300; ip daddr . tcp sport @swallowed drop; }}
  chain in {{ type filter hook input priority -300; ip saddr . tcp dport @swallowed drop; }}
}}
"""


class Way(enum.Enum):
    """The two directions, by the exit's address on each road."""

    UP = EXIT_A
    DOWN = EXIT_B


class Death(enum.Enum):
    """How a road ends a leg."""

    CLOSE = "close"
    """FIN in both directions, wherever in a record it happens to be."""
    RESET = "reset"
    """RST to one end, an error to the other."""
    SWALLOW = "swallow"
    """Drop every segment in both directions, without a report to either side."""


@dataclass(frozen=True, slots=True)
class Connection:
    """One TCP connection of a direction; ``port`` is the client's."""

    way: Way
    port: int


class Legs:
    """Sees and ends the legs between the client and the exit of ``lab``, whose process is ``exit_pid``.

    Only IPv4 and the exit's own TLS: behind a front end the other end is another program. Raises HostError.
    """

    def __init__(self, lab: Lab, exit_pid: int) -> None:
        self._lab = lab
        self._exit_pid = exit_pid
        self._nft(_RULES.format(seconds=SWALLOWED_FOR))
        self._swallowed: set[Connection] = set()

    def of(self, way: Way) -> list[Connection]:
        """The established connections of a direction, without those that are swallowed."""
        found = []
        for local, remote, _ in _table(self._lab, CLIENT):
            if remote == (way.value, ROAD_PORT):
                connection = Connection(way, local[1])
                if connection not in self._swallowed:
                    found.append(connection)
        return sorted(found, key=lambda connection: connection.port)

    def kill(self, connection: Connection, death: Death) -> bool:
        """End a connection; False when it has just ended by itself."""
        if death is Death.SWALLOW:
            way = connection.way.value
            self._nft(f"add element inet chaos swallowed {{ {way} . {connection.port} }}\n")
            self._swallowed.add(connection)
            return True
        with self._socket_of(connection) as sock:
            if sock is None:
                return False
            with contextlib.suppress(OSError):  # the other end was faster
                if death is Death.CLOSE:
                    sock.shutdown(socket.SHUT_RDWR)
                else:
                    _disconnect(sock)
        return True

    @contextlib.contextmanager
    def _socket_of(self, connection: Connection) -> Iterator[socket.socket | None]:
        """The exit's end of a connection, for as long as the block lasts."""
        inode = next(
            (
                inode
                for local, remote, inode in _table(self._lab, EXIT)
                if local == (connection.way.value, ROAD_PORT) and remote[1] == connection.port
            ),
            None,
        )
        descriptor = None if inode is None else _descriptor_of(self._exit_pid, inode)
        if descriptor is None:
            yield None
            return
        pidfd = os.pidfd_open(self._exit_pid)
        try:
            taken = _pidfd_getfd(pidfd, descriptor)
        finally:
            os.close(pidfd)
        if taken is None:
            yield None
            return
        with socket.socket(fileno=taken) as sock:
            yield sock

    def _nft(self, text: str) -> None:
        argv = ["ip", "netns", "exec", self._lab.namespace(CLIENT), "nft", "-f", "-"]
        command(argv, text=text)


Address = tuple[str, int]


def _table(lab: Lab, host: str) -> list[tuple[Address, Address, str]]:
    """Local address, remote address and inode of every established IPv4 connection, and of mapped ones."""
    found = []
    with lab.inside(host):
        tables = [Path("/proc/thread-self/net", name).read_text() for name in ("tcp", "tcp6")]
    for line in (line for table in tables for line in table.splitlines()[1:]):
        fields = line.split()
        if fields[3] == _ESTABLISHED:
            found.append((_address(fields[1]), _address(fields[2]), fields[9]))
    return found


def _address(text: str) -> Address:
    host, _, port = text.partition(":")
    # The last word of an IPv6 address is the IPv4 address when it is a mapped one; others match nothing.
    return socket.inet_ntoa(struct.pack("=I", int(host[-8:], 16))), int(port, 16)


def _descriptor_of(pid: int, inode: str) -> int | None:
    wanted = f"socket:[{inode}]"
    for path in Path("/proc", str(pid), "fd").iterdir():
        with contextlib.suppress(OSError):
            if os.readlink(path) == wanted:
                return int(path.name)
    return None


def _pidfd_getfd(pidfd: int, descriptor: int) -> int | None:
    libc = ctypes.CDLL(None, use_errno=True)
    taken: int = libc.syscall(_PIDFD_GETFD, pidfd, descriptor, 0)
    if taken >= 0:
        return taken
    code = ctypes.get_errno()
    if code == 9:  # EBADF: closed meanwhile
        return None
    raise HostError(f"The sockets of the exit cannot be reached ({os.strerror(code)}): run this as root.")


def _disconnect(sock: socket.socket) -> None:
    """Send RST to the peer, and ECONNRESET to the owner of the socket: connect(2) to AF_UNSPEC."""
    libc = ctypes.CDLL(None, use_errno=True)
    nowhere = struct.pack("=H14x", socket.AF_UNSPEC)
    if libc.connect(sock.fileno(), nowhere, len(nowhere)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
