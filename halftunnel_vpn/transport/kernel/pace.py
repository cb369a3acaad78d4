"""The pace of a leg, kept by the kernel, and how long to wait until it wants more.

SO_MAX_PACING_RATE works without the fq qdisc: TCP has timers of its own (tcp_internal_pacing). The unsent
bytes are read after each write: TCP_NOTSENT_LOWAT alone does not bound them, because the kernel fills the
last buffer up to 64 KiB (tcp_sendmsg_locked) before it checks that bound.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct

WAKE_TIME = 0.004
"""Seconds for which the unsent bytes of a leg should last at its pace."""

MIN_UNSENT = 1024
"""Bytes that may always wait: the kernel holds each packet back until its time anyway."""

LEAST_REST = 0.001
"""Seconds of a rest, at least: the loops' timers know milliseconds."""

MAX_REST = 1.0
"""Seconds after which the unsent bytes are read again, at most."""

_SO_MAX_PACING_RATE = 47  # asm-generic/socket.h; Python has no name for it
_NO_LIMIT = -1
_MAX_LIMIT = (1 << 31) - 1
_SIOCOUTQNSD = 0x894B  # linux/sockios.h: bytes not sent yet
_INT = struct.Struct("=i")


class Pace:
    """The pace of one leg, in bytes a second; 0 is no limit."""

    __slots__ = ("_bound", "_transport", "rate", "unsent")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._bound = 0
        self.rate = 0.0
        self.unsent = 0

    def set(self, rate: float) -> None:
        """Let the kernel send ``rate`` bytes a second at most."""
        sock = self._transport.get_extra_info("socket")
        if sock is None:
            return
        try:
            limit = min(int(rate), _MAX_LIMIT) if rate else _NO_LIMIT
            sock.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, limit)
        except OSError:
            return  # the connection is gone, or a sandbox without it: then TCP's own pace is what there is
        self.rate = rate
        self._bound = max(int(rate * WAKE_TIME), MIN_UNSENT)

    def rest(self) -> float:
        """Return the seconds for which nothing should be written; 0 when the kernel has little enough."""
        sock = self._transport.get_extra_info("socket")
        if sock is None:
            return 0.0
        try:
            (self.unsent,) = _INT.unpack(fcntl.ioctl(sock.fileno(), _SIOCOUTQNSD, bytes(_INT.size)))
        except (OSError, ValueError):  # the connection is gone: its descriptor may be -1
            return 0.0
        if self.unsent < self._bound or not self.rate:
            return 0.0
        return min(max((self.unsent - self._bound * 0.6) / self.rate, LEAST_REST), MAX_REST)
