"""DNS streams at the exit: one query each, framed as over TCP (RFC 7766 section 8)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import DnsError
from halftunnel_vpn.protocol.stream_messages import ResetCode
from halftunnel_vpn.session.stream import ByteStream
from halftunnel_vpn.transport.driver import Driver

LENGTH_BYTES = 2

MAX_QUERY = 4096
"""Bytes of the longest query that is taken: a question, and what EDNS adds to it."""


class DnsRelay:
    """Answers one query on ``stream``; implements StreamHandler.

    ``start`` runs a coroutine as an owned task, ``query`` asks the resolvers.
    """

    __slots__ = ("_asked", "_counters", "_driver", "_on_closed", "_query", "_received", "_start", "_stream")

    def __init__(
        self,
        stream: ByteStream,
        driver: Driver,
        query: Callable[[bytes], Awaitable[bytes]],
        start: Callable[[Coroutine[Any, Any, None]], object],
        counters: Counters,
        on_closed: Callable[[], None],
    ) -> None:
        self._stream = stream
        self._driver = driver
        self._query = query
        self._start = start
        self._counters = counters
        self._on_closed = on_closed
        self._received = bytearray()
        self._asked = False

    def opened(self, now: float) -> None:
        """Never called at the exit."""

    def refused(self, code: ResetCode, now: float) -> None:
        """The client gave up."""
        self._on_closed()

    def data_received(self, data: memoryview, now: float) -> None:
        """The query, in one piece or several; one that says it is longer than MAX_QUERY is refused."""
        self._stream.consumed(len(data))
        if self._asked:
            return  # one query a stream: what follows it is nothing to keep
        self._received += data
        if len(self._received) < LENGTH_BYTES:
            return
        length = int.from_bytes(self._received[:LENGTH_BYTES], "big")
        if length > MAX_QUERY:
            self._counters.drop("dns-query-too-long")
            self._asked = True
            self._received.clear()
            self._end(ResetCode.PROTOCOL_ERROR)
        elif len(self._received) >= LENGTH_BYTES + length:
            self._asked = True
            self._start(self._answer(bytes(self._received[LENGTH_BYTES : LENGTH_BYTES + length])))

    def finished(self, now: float) -> None:
        """The client asks nothing more."""
        if not self._asked:
            self._end(ResetCode.PROTOCOL_ERROR)

    def aborted(self, code: ResetCode, now: float) -> None:
        """The client gave up, or its session is gone."""
        self._on_closed()

    def room_grew(self, now: float) -> None:
        """An answer always fits the first credit."""

    async def _answer(self, message: bytes) -> None:
        try:
            answer = await self._query(message)
        except DnsError as error:
            self._counters.drop(error.reason)
            self._end(ResetCode.HOST_UNREACHABLE)
            return
        stream = self._stream
        stream.session.now = self._driver.clock()
        if stream.stream_id in stream.session.streams and not stream.resetting:
            stream.send(len(answer).to_bytes(LENGTH_BYTES, "big") + answer)
            stream.finish()
        self._on_closed()

    def _end(self, code: ResetCode) -> None:
        self._stream.session.now = self._driver.clock()
        self._stream.reset(code)
        self._on_closed()
