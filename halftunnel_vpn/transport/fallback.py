"""Hand strangers to a real web server: pass on what they sent, and return its answer unchanged.

One request is served on each connection (``Connection: close``), so that a proxy before the exit never sends
a client's upgrade on a connection that already belongs to the web server.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import cast

from halftunnel_vpn.transport.admission import IpAddress
from halftunnel_vpn.transport.http_head import HttpRequest

CONNECT_TIMEOUT = 5.0
"""Seconds that the web server has to take a connection."""

MAX_STAY = 120.0
"""Seconds that a stranger may stay with the web server, in all."""

_REPLACED = re.compile(rb"(?:connection|keep-alive|x-forwarded-(?:for|proto)):", re.IGNORECASE)


def passed_on(request: HttpRequest, origin: IpAddress, *, is_secure: bool) -> bytes:
    """Return the head of ``request`` as the web server gets it: who asked, and that the connection ends."""
    first, *lines = re.split(rb"\r?\n", request.raw.rstrip(b"\r\n"))
    kept = [line for line in lines if not _REPLACED.match(line)]
    added = [
        f"X-Forwarded-For: {origin}".encode(),
        b"X-Forwarded-Proto: " + (b"https" if is_secure else b"http"),
        b"Connection: close",
    ]
    return b"\r\n".join([first, *kept, *added, b"", b""])


class _End(asyncio.Protocol):
    """One of the two connections; what comes in goes out on the other."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: _End | None = None
        self.lost: Callable[[], None] = lambda: None
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        """Let the other direction go on, where the connection can end one way and that one has not ended."""
        self._ended = True
        if self.other is None or self.other.transport is None or self.transport is None:
            return False
        if self.other._ended:
            return False
        if self.other.transport.can_write_eof() and self.transport.can_write_eof():
            self.other.transport.write_eof()
            return True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()
        self.lost()

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()


async def hand_over(
    stranger: asyncio.Transport, sent: bytes, target: tuple[str, int], lost: Callable[[], None]
) -> None:
    """Connect ``stranger``, which sent ``sent`` and is not being read, with the web server at ``target``.

    Afterwards ``lost`` is called when the stranger's connection is closed. Raises OSError when the web server
    cannot be reached; then nothing has changed. Each side is read only as fast as the other one takes it.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(CONNECT_TIMEOUT):
        server, server_end = await loop.create_connection(_End, *target)
    if stranger.is_closing():
        server.abort()
        return
    end = _End()
    end.transport, end.other, server_end.other = stranger, server_end, end
    deadline = loop.call_later(MAX_STAY, stranger.abort)

    def gone() -> None:
        deadline.cancel()
        lost()

    end.lost = gone
    stranger.set_protocol(end)
    server.write(sent)
    stranger.resume_reading()
