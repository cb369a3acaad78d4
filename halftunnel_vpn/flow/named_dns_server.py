"""The DNS server that a client has named, for messages that only this server can answer."""

from __future__ import annotations

from typing import Protocol

from halftunnel_vpn.flow.interfaces import StreamPort
from halftunnel_vpn.protocol.dns_framing import FrameReader
from halftunnel_vpn.protocol.stream_messages import ResetCode


class DnsClient(Protocol):
    """The client's connection to us."""

    @property
    def now(self) -> float:
        """Monotonic seconds."""
        ...

    @property
    def has_enough(self) -> bool:
        """Whether the client leaves so many bytes unread that the server has to wait."""
        ...

    def go_on(self) -> None:
        """Ask the buffered queries."""
        ...

    def deliver(self, message: bytes) -> None:
        """Send a DNS message to the client."""
        ...

    def server_finished(self) -> None:
        """Note that the server sends nothing more."""
        ...

    def server_failed(self, code: ResetCode) -> None:
        """Note that the server cannot be reached, or that its connection is lost."""
        ...


class NamedServer:
    """The connection to the DNS server that a client has named. Implements StreamHandler.

    The creator must set ``stream``. Only whole messages go to ``client``, because our own answers may come
    between them.
    """

    __slots__ = ("_client", "_fin_came", "_is_fin_sent", "_owed", "_reader", "is_finished", "stream")

    def __init__(self, client: DnsClient) -> None:
        self.stream: StreamPort
        # Whether the server has finished and the client has received all that it sent.
        self.is_finished = False
        self._client = client
        self._reader = FrameReader()
        # Bytes of credit that are held back while the client does not read.
        self._owed = 0
        self._fin_came = False
        self._is_fin_sent = False

    def finish(self) -> None:
        """Finish the stream to the server: the client sends no more queries."""
        if not self._is_fin_sent:
            self._is_fin_sent = True
            self.stream.finish()

    def reset(self, code: ResetCode) -> None:
        """Reset the stream to the server: the client has reset its connection."""
        self.is_finished = True
        self._reader.clear()
        self.stream.reset(code)

    def read_on(self) -> None:
        """Pass whole messages to the client until it has enough, and return credit to the server."""
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
        """Send the buffered queries: the exit has connected."""
        self._client.go_on()

    def refused(self, code: ResetCode, now: float) -> None:
        """Report a failure to the client: the exit could not connect."""
        self.aborted(code, now)

    def data_received(self, data: memoryview, now: float) -> None:
        """Take answers, in any pieces. The credit of the stream bounds what waits for the client."""
        self._owed += len(data)
        if self.is_finished:
            self.stream.consumed(len(data), now)
            return
        self._reader.feed(data)
        self.read_on()

    def finished(self, now: float) -> None:
        """Note that the server sends nothing more."""
        self._fin_came = True
        self.read_on()

    def aborted(self, code: ResetCode, now: float) -> None:
        """Report a failure to the client: the connection is lost."""
        self.is_finished = True
        self._reader.clear()
        self._client.server_failed(code)

    def room_grew(self, now: float) -> None:
        """Send more of the buffered queries: the stream has room again."""
        self._client.go_on()
