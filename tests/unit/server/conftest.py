"""The far ends of legs that lead nowhere, and a driver on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from websockets.client import ClientProtocol
from websockets.frames import Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.protocol.records import MAX_RECORD
from halftunnel_vpn.transport.driver import Driver
from halftunnel_vpn.transport.leg import Leg
from halftunnel_vpn.transport.leg_phase import LegPhase


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
async def driver() -> AsyncIterator[Driver]:
    """Real time."""
    made = Driver(asyncio.get_running_loop())
    yield made
    made.close()


class Wire(asyncio.Transport):
    """A transport that leads nowhere and keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += data

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None: ...

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


class FarEnd:
    """The client's end of a leg: reads what the exit has sent, speaks over it, and hangs up."""

    def __init__(self, peer: str) -> None:
        self.wire = Wire()
        self.joins = 0
        self._protocol = ClientProtocol(parse_uri("ws://exit/"), state=OPEN, max_size=1 << 20)
        self.leg = Leg(ServerProtocol(state=OPEN, max_size=MAX_RECORD), self.wire, peer=peer)

    def open(self, newcomer: Callable[[Leg, Callable[[], None]], Any]) -> FarEnd:
        self.leg.open(newcomer(self.leg, self._joined))
        return self

    def _joined(self) -> None:
        self.joins += 1

    def say(self, message: bytes) -> None:
        """One binary message; as in life, nothing is heard when the leg is closed."""
        self._protocol.send_binary(message)
        self._deliver()

    def say_text(self) -> None:
        self._protocol.send_text(b"hello")
        self._deliver()

    def hang_up(self) -> None:
        self.leg.connection_lost(None)

    def heard(self) -> list[bytes]:
        """The messages of the exit since the last call."""
        self._protocol.receive_data(bytes(self.wire.written))
        self.wire.written.clear()
        frames = self._protocol.events_received()
        return [bytes(frame.data) for frame in frames if frame.opcode is Opcode.BINARY]

    @property
    def is_closed(self) -> bool:
        return self.leg.state is not LegPhase.OPEN

    def _deliver(self) -> None:
        for data in self._protocol.data_to_send():
            view = self.leg.get_buffer(len(data))
            view[: len(data)] = data
            self.leg.buffer_updated(len(data))


@pytest.fixture
def far_end() -> Callable[..., FarEnd]:
    """Makes legs by their far end."""
    return FarEnd
