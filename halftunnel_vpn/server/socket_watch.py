"""Waits for many datagram sockets at once, ICMP errors among what they have to say.

libuv, which is below uvloop, stops watching a descriptor for good once that reports an error (EPOLLERR), and
a UDP socket that asks for ICMP errors reports each of them so. Hence an epoll instance of our own: the loop
watches it alone, and it never reports an error.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable

EVENTS_PER_WAKE = 64
"""Sockets that are served before other events get their turn."""

Ready = Callable[[socket.socket, bool], None]
"""Gets the socket, and whether errors wait in its error queue."""


class SocketWatch:
    """Calls back when a socket has something to read or an error to tell, as long as it has."""

    __slots__ = ("_epoll", "_loop", "_sockets")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll: select.epoll | None = None
        self._sockets: dict[int, tuple[socket.socket, Ready]] = {}

    def add(self, sock: socket.socket, ready: Ready) -> None:
        """Begin to watch ``sock``. Raises OSError when the process has no descriptor left."""
        if self._epoll is None:
            self._epoll = select.epoll()
            self._loop.add_reader(self._epoll.fileno(), self._wake)
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        self._sockets[sock.fileno()] = sock, ready

    def remove(self, sock: socket.socket) -> None:
        """Watch ``sock`` no more; call it before the socket is closed. Harmless when it is not watched."""
        if self._epoll is None or self._sockets.pop(sock.fileno(), None) is None:
            return
        self._epoll.unregister(sock.fileno())
        if not self._sockets:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None

    def _wake(self) -> None:
        assert self._epoll is not None
        for descriptor, events in self._epoll.poll(0, EVENTS_PER_WAKE):
            watched = self._sockets.get(descriptor)
            if watched is not None:  # else what came before has closed it
                sock, ready = watched
                ready(sock, events & select.EPOLLERR != 0)
