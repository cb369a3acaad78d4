"""What the two users of a stream see of each other, as structural types.

``flow`` (client), the exit's sockets and ``session`` must not import one another; they meet here.
 Data moves by direct call: no event object, no queue and no copy between the layers. ``now`` is the
monotonic clock in seconds.
"""

from __future__ import annotations

from typing import Protocol

from halftunnel_vpn.protocol.stream_messages import OpenRequest, ResetCode
from halftunnel_vpn.protocol.wire import Buffer

__all__ = [
    "Buffer",
    "DatagramHandler",
    "DatagramPort",
    "ProxyPort",
    "StreamHandler",
    "StreamOpener",
    "StreamPort",
    "TransferableStream",
]


class StreamPort(Protocol):
    """A byte stream, as its user sees it."""

    @property
    def fin_follows(self) -> bool:
        """During :meth:`StreamHandler.data_received`: whether ``finished`` is called next, at once."""
        ...

    @property
    def offender(self) -> bytes:
        """The address of the router that the peer's RESET names, empty for none."""
        ...

    @property
    def room(self) -> int:
        """Bytes that may be handed to :meth:`send` now."""
        ...

    def send(self, data: Buffer, now: float) -> None:
        """Take over ``data``; it is kept by reference until acknowledged and must not change."""
        ...

    def finish(self) -> None:
        """FIN, after everything sent so far."""
        ...

    def reset(self, code: ResetCode) -> None:
        """End both directions at once; what is not delivered is dropped."""
        ...

    def consumed(self, count: int, now: float) -> None:
        """Give the sender credit for ``count`` received bytes that no longer need memory."""
        ...


class StreamHandler(Protocol):
    """The user of a byte stream, as the stream sees it."""

    def opened(self, now: float) -> None:
        """The exit has connected."""
        ...

    def refused(self, code: ResetCode, now: float) -> None:
        """The exit could not connect; the stream is over."""
        ...

    def data_received(self, data: memoryview, now: float) -> None:
        """The next bytes, in order, once."""
        ...

    def finished(self, now: float) -> None:
        """The peer sends nothing more (FIN); everything before has been delivered."""
        ...

    def aborted(self, code: ResetCode, now: float) -> None:
        """The stream is over in both directions."""
        ...

    def room_grew(self, now: float) -> None:
        """There is room again after there was little."""
        ...


class TransferableStream(StreamPort, Protocol):
    """A byte stream whose user may hand it over to another one."""

    handler: StreamHandler
    """The user."""


class DatagramPort(Protocol):
    """A datagram stream, seen by its user."""

    def send(self, *parts: Buffer) -> None:
        """Queue one run, given in parts; the oldest queued run is dropped when the queue is full."""
        ...

    @property
    def has_enough(self) -> bool:
        """Whether so much waits that the user should stop reading."""
        ...

    def close(self) -> None:
        """Forget the stream at both ends."""
        ...


class DatagramHandler(Protocol):
    """The user of a datagram stream, seen by the stream."""

    def run_received(self, data: memoryview, now: float) -> None:
        """One run (see ``datagram.py``)."""
        ...

    def refused(self, code: ResetCode, now: float) -> None:
        """The exit could not open it."""
        ...

    def aborted(self, code: ResetCode, now: float) -> None:
        """The stream is over."""
        ...


class StreamOpener(Protocol):
    """Opens streams towards the exit.

    Both methods raise SessionError when nothing can be opened now, and UpstreamUnavailable when that has
    been so for a while: refuse the application at once instead of letting it wait.
    """

    def open_stream(self, request: OpenRequest, handler: StreamHandler, now: float) -> TransferableStream:
        """Return a byte stream; ``handler.opened`` or ``handler.refused`` follows."""
        ...

    def open_datagrams(self, request: OpenRequest, handler: DatagramHandler, now: float) -> DatagramPort:
        """Return a datagram stream, usable at once."""
        ...


class ProxyPort(Protocol):
    """A proxy whose connections are streams, as the owner of the session sees it."""

    @property
    def connections(self) -> int:
        """How many programs are connected now."""
        ...

    def open(self) -> None:
        """Claim every address; nobody is served yet. Raises HostError."""
        ...

    def serve(self) -> None:
        """Accept connections from now on."""
        ...

    def session_made(self, now: float) -> None:
        """There is a session again."""
        ...

    def close(self) -> None:
        """Stop listening, and end every connection. Repeatable."""
        ...
