"""The destination of forwarded HTTP requests: one stream, and one exchange after the other on it."""

from __future__ import annotations

from enum import Enum

from halftunnel_vpn.http1.exchange import ClientSide, ServerSide
from halftunnel_vpn.http1.messages import (
    MalformedMessage,
    RequestHead,
    ResponseHead,
    Signal,
    UnsendableMessage,
)
from halftunnel_vpn.protocol.interfaces import TransferableStream
from halftunnel_vpn.protocol.stream_messages import ResetCode
from halftunnel_vpn.proxy.forwarded_head import end_to_end
from halftunnel_vpn.proxy.http_negotiation import MAX_HEAD


class Progress(Enum):
    """How far the response has come."""

    MORE = "more"
    COMPLETE = "complete"
    BROKEN = "broken"
    """The destination sent what is no HTTP, or closed in the middle."""


class Origin:
    """The destination of the requests of one connection. Without a stream nothing is sent."""

    __slots__ = ("_exchange", "_has_ended", "_unread", "stream")

    def __init__(self) -> None:
        self.stream: TransferableStream | None = None
        self._exchange: ClientSide | None = None
        # Whether the destination has sent everything that it will ever send on this stream.
        self._has_ended = False
        # Bytes of the stream whose credit was not returned yet.
        self._unread = 0

    @property
    def has_room(self) -> bool:
        """Whether more of the request can be sent now."""
        return self.stream is not None and self.stream.room > 0

    @property
    def is_spent(self) -> bool:
        """Whether no further request can follow on this stream."""
        return self._exchange is not None and (self._has_ended or not self._exchange.is_over)

    def attach(self, stream: TransferableStream) -> None:
        """Send the next request on ``stream``."""
        self.stream = stream
        self._has_ended = False
        self._exchange = ClientSide(max_head=MAX_HEAD)

    def start_next(self) -> bool:
        """Return whether the next request can go on the same stream, and prepare for it."""
        if self._exchange is None or not self._exchange.is_over:
            return False
        self._exchange.start_next()
        return True

    def request(self, head: RequestHead, now: float) -> None:
        """Send the head of a request. Raises UnsendableMessage."""
        assert self.stream is not None and self._exchange is not None
        self.stream.send(self._exchange.request(head), now)

    def data(self, part: bytes, now: float) -> None:
        """Send a part of the request's body."""
        if self._exchange is not None:
            self._send(self._exchange.data(part), now)

    def end(self, now: float) -> None:
        """End the request."""
        if self._exchange is not None:
            self._send(self._exchange.end(), now)

    def answer(self, data: bytes, server: ServerSide) -> tuple[bytes, Progress]:
        """Take bytes of the destination, b"" for its end.

        Return what is to be written to the program, as ``server`` frames it, and how far the response is.
        """
        written = bytearray()
        exchange = self._exchange
        if exchange is None:
            return b"", Progress.MORE
        self._unread += len(data)
        self._has_ended = self._has_ended or not data
        try:
            exchange.feed(data)
            while True:
                part = exchange.next()
                if isinstance(part, ResponseHead):
                    written += server.response(part._replace(headers=end_to_end(part.headers)))
                elif isinstance(part, bytes):
                    written += server.data(part)
                elif part is Signal.END:
                    written += server.end()
                    return bytes(written), Progress.COMPLETE
                else:
                    return bytes(written), Progress.MORE
        except (MalformedMessage, UnsendableMessage):
            return bytes(written), Progress.BROKEN

    def return_credit(self, now: float) -> None:
        """Let the destination send as much again as the program has taken."""
        held, self._unread = self._unread, 0
        if held and self.stream is not None:
            self.stream.consumed(held, now)

    def leave(self, now: float) -> None:
        """End the stream; the next request gets one of its own."""
        self.return_credit(now)
        stream = self.stream
        self.lost()
        if stream is not None:
            stream.reset(ResetCode.NORMAL)

    def lost(self) -> None:
        """Forget the stream, which has ended by itself."""
        self.stream = self._exchange = None
        self._unread = 0

    def _send(self, data: bytes, now: float) -> None:
        if data and self.stream is not None:
            self.stream.send(data, now)
