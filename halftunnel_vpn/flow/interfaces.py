"""The interfaces through which a flow uses the floors around it (structural types).

The interfaces of streams, which the session and the exit share, are in ``protocol.interfaces``. This module
adds the two that only flows use: the TUN device and DNS. ``now`` is the monotonic clock in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Protocol, TypeAlias

from halftunnel_vpn.protocol.interfaces import (
    Buffer,
    DatagramHandler,
    DatagramPort,
    StreamHandler,
    StreamOpener,
    StreamPort,
)

__all__ = [
    "Buffer",
    "DatagramHandler",
    "DatagramPort",
    "DnsOutcome",
    "DnsPort",
    "FrameWriter",
    "OpenRun",
    "StreamHandler",
    "StreamOpener",
    "StreamPort",
]

FrameWriter: TypeAlias = Callable[[Sequence[Buffer]], None]
"""Write one frame to the TUN device. The frame is given in parts; the first begins with the vnet header."""


class DnsOutcome(Enum):
    """What happens to a DNS message."""

    IGNORED = "ignored"
    """It gets no answer."""
    ANSWERED = "answered"
    """It has been answered, or will be."""
    FOR_SERVER = "for server"
    """Only the server to which it was sent can answer it."""


class DnsPort(Protocol):
    """The resolver, as used by flows to port 53 and by flows to a fake address."""

    def query(
        self,
        message: bytes,
        reply: Callable[[bytes], None],
        *,
        stream: bool,
        client: bytes,
        names_server: bool,
    ) -> DnsOutcome:
        """Answer one DNS message: call ``reply`` once, now or later, if the outcome is ANSWERED.

        ``stream`` is True when the answer goes out over TCP and needs no truncation. ``client`` is the
        address of the client (4 or 16 bytes). ``names_server`` is True when the message was sent to a server
        other than our own resolver; only then the outcome may be FOR_SERVER.
        """
        ...

    def name_of(self, address: bytes) -> str | None:
        """Return the name that a fake address (4 or 16 bytes) stands for; None for any other address."""
        ...

    def address_of(self, name: str, version: int) -> bytes | None:
        """Return the fake address of ``name`` for IP ``version`` 4 or 6; None outside fake-ip mode."""
        ...


class OpenRun(Protocol):
    """A flow with datagrams that are sent at the end of the batch of frames."""

    def flush(self) -> None:
        """Send the waiting datagrams as one run."""
        ...
