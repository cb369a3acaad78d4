"""The streams of one client of a measurement: they ask the destination for bytes and take them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from halftunnel_vpn.errors import SessionError
from halftunnel_vpn.protocol.interfaces import StreamOpener, TransferableStream
from halftunnel_vpn.protocol.stream_messages import OpenRequest, ResetCode, StreamKind
from lab.scale.destination import LENGTH, REQUEST

LOOPBACK: Final = b"\x7f\0\0\1"


class LostStreamError(Exception):
    """The stream was refused or has ended."""


class AskingStream:
    """One stream to the destination. Implements StreamHandler."""

    def __init__(self, opener: StreamOpener, port: int) -> None:
        self.received = 0
        self._is_open = False
        self._is_lost = False
        self._wanted = 0
        self._waiting: asyncio.Future[None] | None = None
        request = OpenRequest(StreamKind.TCP, LOOPBACK, port, 0)
        self._stream: TransferableStream = opener.open_stream(request, self, time.monotonic())

    async def ask(self, length: int) -> None:
        """Ask for ``length`` bytes and wait for the last of them. Raises LostStreamError."""
        self._wanted = self.received + length
        if self._is_open:
            self._request()
        self._waiting = asyncio.get_running_loop().create_future()
        if self._is_lost:
            raise LostStreamError
        await self._waiting

    def ask_soon(self, length: int) -> None:
        """Ask for ``length`` more bytes without waiting for them."""
        if self._is_open and not self._is_lost:
            self._wanted += length
            self._stream.send(_request(length), time.monotonic())

    def close(self) -> None:
        """End the stream at both ends."""
        if not self._is_lost:
            self._is_lost = True
            self._stream.reset(ResetCode.NORMAL)

    def _request(self) -> None:
        self._stream.send(_request(self._wanted - self.received), time.monotonic())

    def _over(self) -> None:
        self._is_lost = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(LostStreamError())

    # --- StreamHandler ---------------------------------------------------------------------------

    def opened(self, now: float) -> None:
        """The destination has connected."""
        self._is_open = True
        if self._wanted:
            self._request()

    def refused(self, code: ResetCode, now: float) -> None:
        """The exit could not connect."""
        self._over()

    def aborted(self, code: ResetCode, now: float) -> None:
        """The session is gone."""
        self._over()

    def finished(self, now: float) -> None:
        """The destination has ended."""
        self._over()

    def data_received(self, data: memoryview, now: float) -> None:
        """Count the bytes."""
        self.received += len(data)
        self._stream.consumed(len(data), now)
        if self.received >= self._wanted and self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def room_grew(self, now: float) -> None:
        """A request always fits."""


class ClientStreams:
    """All streams of one client. Implements ProxyPort, whose programs are streams of our own."""

    def __init__(self, opener: StreamOpener, port: int, serves: Callable[[], None]) -> None:
        self.opener = opener
        self.port = port
        self.kept: list[AskingStream] = []
        self._serves = serves

    @property
    def connections(self) -> int:
        """The streams that are kept open."""
        return len(self.kept)

    def open(self) -> None:
        """Nothing listens."""

    def serve(self) -> None:
        """There is a first session."""
        self._serves()

    def session_made(self, now: float) -> None:
        """There is a session again."""

    def close(self) -> None:
        """The session ends its streams."""
        self.kept = []

    async def keep(self, number: int, length: int) -> None:
        """Open ``number`` streams, exchange one request on each, and keep them open."""
        made = [AskingStream(self.opener, self.port) for _ in range(number)]
        await asyncio.gather(*(stream.ask(length) for stream in made))
        self.kept += made

    async def request(self, length: int) -> float:
        """Return the seconds that a request over a new stream takes. Raises LostStreamError."""
        began = time.monotonic()
        try:
            stream = AskingStream(self.opener, self.port)
        except SessionError as error:
            raise LostStreamError from error
        try:
            await stream.ask(length)
        finally:
            stream.close()
        return time.monotonic() - began


def _request(length: int) -> bytes:
    return length.to_bytes(LENGTH, "big").ljust(REQUEST, b"\0")
