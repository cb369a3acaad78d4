"""The DNS server that a client has named, for messages that only this server can answer."""

from __future__ import annotations

from typing import Protocol

from halftunnel_vpn.flow.interfaces import StreamPort
from halftunnel_vpn.protocol.dns_framing import FrameReader
from halftunnel_vpn.protocol.stream_messages import ResetCode


class DnsClient(Protocol):
    """The connection of the client to us."""

    @property
    def now(self) -> float:
        """Monotonic seconds."""
        ...

    @property
    def has_enough(self) -> bool:
        """Whether the client leaves so much unread that the server has to wait."""
        ...

    def go_on(self) -> None:
        """Ask what has waited."""
        ...

    def deliver(self, message: bytes) -> None:
        """Give the client a message."""
        ...

    def server_finished(self) -> None:
        """The server sends nothing more."""
        ...

    def server_failed(self, code: ResetCode) -> None:
        """The server cannot be reached, or its connection is gone."""
        ...


class NamedServer:
    """The connection to the DNS server that a client has named; implements StreamHandler.

    The creator sets ``stream``. Messages go to ``client`` whole, since our own answers may come between them.
    """

    __slots__ = ("_client", "_fin_came", "_is_fin_sent", "_owed", "_reader", "is_finished", "stream")

    def __init__(self, client: DnsClient) -> None:
        self.stream: StreamPort
        # Whether the server says nothing more, and the client has been given all that it said.
        self.is_finished = False
        self._client = client
        self._reader = FrameReader()
        # Bytes of credit that are held back while the client does not read.
        self._owed = 0
        self._fin_came = False
        self._is_fin_sent = False

    def finish(self) -> None:
        """The client asks nothing more."""
        if not self._is_fin_sent:
            self._is_fin_sent = True
            self.stream.finish()

    def reset(self, code: ResetCode) -> None:
        """The client is gone."""
        self.is_finished = True
        self._reader.clear()
        self.stream.reset(code)

    def read_on(self) -> None:
        """Give the client whole messages until it has enough, and the server its credit back."""
        client = self._client
        while not client.has_enough:
            message = self._reader.take()
            if message is None:
                break
            client.deliver(message)
        if self._owed and not client.has_enough:
            owed, self._owed = self._owed, 0
            self.stream.consumed(owed, client.now)
        if self._fin_came and not client.has_enough and not self.is_finished:
            self.is_finished = True
            client.server_finished()

    def opened(self, now: float) -> None:
        """The exit has connected."""
        self._client.go_on()

    def refused(self, code: ResetCode, now: float) -> None:
        """The exit could not connect."""
        self.aborted(code, now)

    def data_received(self, data: memoryview, now: float) -> None:
        """Answers, in any pieces; what is not given to the client is bounded by the stream's credit."""
        self._owed += len(data)
        if self.is_finished:
            self.stream.consumed(len(data), now)
            return
        self._reader.feed(data)
        self.read_on()

    def finished(self, now: float) -> None:
        """The server says nothing more."""
        self._fin_came = True
        self.read_on()

    def aborted(self, code: ResetCode, now: float) -> None:
        """The connection is over."""
        self.is_finished = True
        self._reader.clear()
        self._client.server_failed(code)

    def room_grew(self, now: float) -> None:
        """The server takes more."""
        self._client.go_on()
