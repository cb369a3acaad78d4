"""The messages of a leg before it has joined a session."""

from __future__ import annotations

import asyncio
from collections import deque

from halftunnel_vpn.errors import RoadError
from halftunnel_vpn.protocol.wire import Buffer
from halftunnel_vpn.transport.leg import Leg
from halftunnel_vpn.transport.sealed_leg import SealedLeg

MAX_EARLY = 64
"""The most messages before the client has the keys for them. More close the leg."""


class LegClosed(RoadError):
    """The exit, or a proxy in front of it, has closed a leg before it joined."""


class EarlyMessages:
    """Keeps the messages of a new leg until they are taken; implements LegListener."""

    def __init__(self) -> None:
        self._messages: deque[bytes] = deque()
        self._reason: str | None = None
        self._changed = asyncio.Event()

    async def next_message(self) -> bytes:
        """Return the next message. Raises LegClosed if the leg is closed before one comes."""
        while not self._messages:
            if self._reason is not None:
                raise self.loss()
            self._changed.clear()
            await self._changed.wait()
        return self._messages.popleft()

    def loss(self) -> LegClosed:
        """Return the error for a closed leg."""
        return LegClosed(
            "The exit closed a connection before it answered: check that this client is still on the "
            "exit's list and that the profile is the one it gave; the exit's log says which: "
            "handshake-unknown-client, or handshake-bad-tag for the key of another exit.",
            reason=f"leg-closed-{self._reason}",
        )

    async def wait_closed(self) -> None:
        """Return when the leg is closed."""
        while self._reason is None:
            self._changed.clear()
            await self._changed.wait()

    def hand_over(self, leg: Leg, sealed: SealedLeg) -> None:
        """Make ``sealed`` the listener. It receives the messages that have come in the meantime."""
        leg.listener = sealed
        while self._messages:
            sealed.record_received(leg, self._messages.popleft())
        if self._reason is not None:
            sealed.leg_closed(leg, self._reason)

    def leg_opened(self, leg: Leg) -> None:
        """Do nothing: the upgrade is done."""

    def record_received(self, leg: Leg, record: Buffer) -> None:
        """Keep a copy of a message, whose buffer is reused."""
        if len(self._messages) >= MAX_EARLY:
            leg.close()
            return
        self._messages.append(bytes(record))
        self._changed.set()

    def leg_writable(self, leg: Leg) -> None:
        """Do nothing: no data waits for the leg."""

    def leg_closed(self, leg: Leg, reason: str) -> None:
        """Note that the leg is closed."""
        self._reason = reason
        self._changed.set()
