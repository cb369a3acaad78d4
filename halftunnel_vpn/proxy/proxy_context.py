"""What all connections of one proxy share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.protocol.interfaces import StreamOpener
from halftunnel_vpn.proxy.negotiation import Users
from halftunnel_vpn.transport.driver import Driver
from halftunnel_vpn.transport.relay.socket_watch import SocketWatch

MAX_DATAGRAM = 65_535
"""Bytes of the longest datagram of a program, with its SOCKS header."""


class Waiting(Protocol):
    """What waits for a session."""

    def session_made(self, now: float) -> None:
        """Try again."""
        ...


@dataclass(frozen=True, slots=True)
class ProxyContext:
    """``waiting`` holds the dials that wait for a session; each is bounded in time and by the connections.

    ``buffer`` is what one datagram is read into.
    """

    opener: StreamOpener
    driver: Driver
    watch: SocketWatch
    counters: Counters
    users: Users
    waiting: dict[Waiting, None] = field(default_factory=dict)
    buffer: bytearray = field(default_factory=lambda: bytearray(MAX_DATAGRAM))


class ProxyConnection(Protocol):
    """One connection of a program, in whatever phase."""

    def close(self) -> None:
        """End it at once, at both ends."""
        ...


OnClosed = Callable[[], None]
