"""Legs of a client that lead nowhere, and a profile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from lab.profiles import LEAST
from websockets.client import ClientProtocol
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.protocol.records import MAX_RECORD
from halftunnel_vpn.transport.leg import Leg, LegListener


class Wire(asyncio.Transport):
    """A transport that leads nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()

    def write(self, data: Any) -> None:
        self.written += data

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None: ...

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None: ...

    def abort(self) -> None: ...


class FarEnd:
    """The exit's end of a leg of the client."""

    def __init__(self, listener: LegListener) -> None:
        self._protocol = ServerProtocol(state=OPEN)
        client = ClientProtocol(parse_uri("ws://exit/"), state=OPEN, max_size=MAX_RECORD)
        self.leg = Leg(client, Wire(), peer="192.0.2.1")
        self.leg.open(listener)

    def say(self, message: bytes) -> None:
        """One binary message."""
        self._protocol.send_binary(message)
        for data in self._protocol.data_to_send():
            view = self.leg.get_buffer(len(data))
            view[: len(data)] = data
            self.leg.buffer_updated(len(data))

    def hang_up(self) -> None:
        self.leg.connection_lost(None)


@pytest.fixture
def far_end() -> Callable[[LegListener], FarEnd]:
    """Makes legs by their far end."""
    return FarEnd


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def profile_text() -> str:
    """A profile that says only what must be said, and two URLs downstream."""
    return LEAST
