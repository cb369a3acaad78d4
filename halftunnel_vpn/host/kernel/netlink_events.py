"""A netlink socket on which the kernel announces changes. See netlink(7)."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterable, Iterator
from typing import Final

MESSAGE_SIZE: Final = 65536
"""Bytes read at one time: more than the largest datagram of the kernel."""

_ADD_MEMBERSHIP: Final = 1
_SOL_NETLINK: Final = 270


class NetlinkEvents:
    """Events of some multicast groups of one netlink family, in this network namespace. Raises OSError."""

    def __init__(self, family: int, groups: Iterable[int]) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, family)
        self.fd = self._socket.fileno()
        try:
            self._socket.bind((0, 0))
            for group in groups:
                self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        except OSError:
            self.close()
            raise

    def drain(self) -> Iterator[bytes | None]:
        """Yield each datagram that has arrived, None for datagrams that were lost. Never block."""
        while True:
            try:
                yield self._socket.recv(MESSAGE_SIZE)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                yield None

    def close(self) -> None:
        """Close the socket."""
        with contextlib.suppress(OSError):
            self._socket.close()
