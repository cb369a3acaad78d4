"""The end of a connection after a last answer: an RST would discard it at the program."""

from __future__ import annotations

import socket

from halftunnel_vpn.proxy.proxy_context import OnClosed, ProxyContext
from halftunnel_vpn.transport.listening_socket import drop
from halftunnel_vpn.transport.relay.socket_watch import HUNG_UP, READABLE

LINGER_TIME = 2.0
"""Seconds that a program has to read the answer and to close, after which the connection is cut."""

READ_SIZE = 65_536
"""Bytes discarded at once."""


def has_ended(sock: socket.socket, size: int) -> bool:
    """Discard up to ``size`` bytes of ``sock``; return whether the program has closed its side or is gone."""
    try:
        return not sock.recv(size)
    except (BlockingIOError, InterruptedError):
        return False
    except OSError:
        return True


class Parting:
    """Sends FIN, discards what the program still sends, closes ``sock`` and calls ``on_closed`` once.

    The kernel answers bytes that nobody has read with RST. Implements ProxyConnection.
    """

    __slots__ = ("_is_closed", "_on_closed", "_patience", "_sock", "_watch")

    def __init__(self, sock: socket.socket, context: ProxyContext, on_closed: OnClosed) -> None:
        self._sock = sock
        self._watch = context.watch
        self._on_closed = on_closed
        self._is_closed = False
        self._patience = context.driver.wheel.timer(self._too_slow)
        self._patience.arm(context.driver.clock() + LINGER_TIME)
        try:
            sock.shutdown(socket.SHUT_WR)
            context.watch.set(sock, READABLE | HUNG_UP, self._discard)
        except OSError:
            self._patience.arm(context.driver.clock())  # not from here: the caller must know us first

    def close(self) -> None:
        """End it at once."""
        if self._is_closed:
            return
        self._is_closed = True
        self._patience.cancel()
        self._watch.forget(self._sock)
        drop(self._sock)
        self._on_closed()

    def _discard(self, sock: socket.socket, events: int) -> None:
        if has_ended(sock, READ_SIZE):
            self.close()

    def _too_slow(self, now: float) -> None:
        self.close()
