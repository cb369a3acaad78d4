"""Waits for many sockets at once, with one epoll instance that the event loop watches as one descriptor.

libuv, on which uvloop is based, stops watching a descriptor forever after an error (EPOLLERR). A UDP socket
with ICMP errors enabled reports each of them so. libuv reports a reset TCP connection only once, however much
data is unread. Here both are reported as long as they last. It also costs less: four epoll_ctl calls for a
TCP connection instead of fourteen.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from typing import Final

from halftunnel_vpn.transport.driver import Driver

READABLE: Final = select.EPOLLIN
HUNG_UP: Final = select.EPOLLRDHUP
"""The peer sends nothing more, though some may still be to be read."""
WRITABLE: Final = select.EPOLLOUT
FAILED: Final = select.EPOLLERR
ENDED: Final = select.EPOLLERR | select.EPOLLHUP
"""Reported even if nobody waits for it."""

EVENTS_PER_WAKE = 64
"""Sockets that are served before other events get their turn."""

Ready = Callable[[socket.socket, int], None]
"""Gets the socket and what there is: a set of the bits above."""


class SocketWatch:
    """Calls back when a socket is ready, as long as it is."""

    __slots__ = ("_driver", "_epoll", "_loop", "_sockets", "_turn")

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._loop = driver.loop
        self._epoll: select.epoll | None = None
        self._sockets: dict[int, tuple[socket.socket, Ready, int]] = {}
        self._turn = 0

    def set(self, sock: socket.socket, events: int, ready: Ready) -> None:
        """Wait for ``events`` of ``sock`` from now on, and for nothing that was waited for before.

        Raises OSError when the process has no descriptor left.
        """
        if self._epoll is None:
            self._epoll = select.epoll()
            self._loop.add_reader(self._epoll.fileno(), self._wake)
        number = sock.fileno()
        known = self._sockets.get(number)
        if known is None:
            self._epoll.register(number, events)
            self._sockets[number] = sock, ready, self._turn
        else:
            self._epoll.modify(number, events)
            self._sockets[number] = sock, ready, known[2]

    def remove(self, sock: socket.socket) -> None:
        """Stop watching ``sock``. Call it before the socket is closed. Harmless if it is not watched."""
        number = sock.fileno()
        if self._epoll is None or self._sockets.pop(number, None) is None:
            return
        self._epoll.unregister(number)
        self._rest_if_idle()

    def forget(self, sock: socket.socket) -> None:
        """Do the same for a socket that is closed at once. This needs no system call."""
        if self._epoll is not None and self._sockets.pop(sock.fileno(), None) is not None:
            self._rest_if_idle()

    def _rest_if_idle(self) -> None:
        assert self._epoll is not None
        if not self._sockets:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None

    def _wake(self) -> None:
        assert self._epoll is not None
        self._turn = turn = self._turn + 1
        ready = self._epoll.poll(0, EVENTS_PER_WAKE)
        self._driver.hold()
        try:
            for descriptor, events in ready:
                watched = self._sockets.get(descriptor)
                # what came before may have closed it, and its number may be another socket's by now
                if watched is not None and watched[2] != turn:
                    try:
                        watched[1](watched[0], events)
                    except Exception as error:
                        self._failed(watched[0], error)
        finally:
            self._driver.release()

    def _failed(self, sock: socket.socket, error: Exception) -> None:
        """Report a fault of one callback; its socket, which would call it again and again, rests."""
        if sock.fileno() >= 0:
            self.remove(sock)
        self._loop.call_exception_handler({"message": "the callback of a socket failed", "exception": error})
