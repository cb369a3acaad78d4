"""A stream for tests whose users do not know the time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from halftunnel_vpn.protocol.wire import Buffer
from halftunnel_vpn.session.datagram_stream import DatagramStream


class StreamAtNow:
    """A stream whose ``send`` and ``consumed`` happen at the time of ``clock``."""

    def __init__(self, stream: Any, clock: Callable[[], float]) -> None:
        self._stream = stream
        self._clock = clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def send(self, *parts: Buffer) -> None:
        if isinstance(self._stream, DatagramStream):
            self._stream.send(*parts)
        else:
            self._stream.send(*parts, self._clock())

    def consumed(self, count: int) -> None:
        self._stream.consumed(count, self._clock())
