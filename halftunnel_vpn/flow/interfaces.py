"""What a flow sees of the floors around it, as structural types.

The stream side, which session and exit share, lives in ``protocol.interfaces``; here it meets the
two ports that only flows have: the TUN device and DNS. ``now`` is the monotonic clock in seconds.
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
"""Writes one frame to the TUN device, given in parts; the first part begins with the vnet header."""


class DnsOutcome(Enum):
    """What becomes of a DNS message."""

    IGNORED = "ignored"
    """It gets no answer."""
    ANSWERED = "answered"
    """It has been answered, or will be."""
    FOR_SERVER = "for server"
    """Only the server that it was sent to can answer it."""


class DnsPort(Protocol):
    """The resolver, seen by the flows whose port is 53 and by those to a fake address."""

    def query(
        self,
        message: bytes,
        reply: Callable[[bytes], None],
        *,
        stream: bool,
        client: bytes,
        names_server: bool,
    ) -> DnsOutcome:
        """Answer one DNS message by calling ``reply`` once, now or later, if the outcome is ANSWERED.

        ``stream`` tells that the answer goes out over TCP and needs no truncation. ``client`` is the address
        of who asks. ``names_server`` tells whether the message was sent to a server other than our own
        resolver: only then the outcome may be FOR_SERVER.
        """
        ...

    def name_of(self, address: bytes) -> str | None:
        """The name that a fake address (4 or 16 bytes) stands for; None when it is no fake address."""
        ...

    def address_of(self, name: str, version: int) -> bytes | None:
        """The fake address of ``name`` for IP ``version`` 4 or 6; None outside fake-ip mode."""
        ...


class OpenRun(Protocol):
    """A flow with datagrams that wait for the end of the batch of frames."""

    def flush(self) -> None:
        """Send what waits as one run."""
        ...
