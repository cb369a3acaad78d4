"""DNS streams at the exit: one query each, framed as in TCP (RFC 7766 section 8)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import DnsError, WireError
from halftunnel_vpn.protocol.dns_framing import FrameReader, frame
from halftunnel_vpn.protocol.stream_messages import ResetCode
from halftunnel_vpn.session.byte_stream import ByteStream
from halftunnel_vpn.session.memory_budget import KEEP_TO_SEND, MIN_SEND
from halftunnel_vpn.transport.driver import Driver

MAX_QUERY = 4096
"""Bytes of the longest accepted query: a question, and what EDNS adds to it."""


class DnsRelay:
    """Answers one query on ``stream``; implements StreamHandler.

    ``start`` runs a coroutine as an owned task, ``query`` asks the resolvers. The query is cancelled if the
    stream ends before the answer.
    """

    __slots__ = (
        "_asking",
        "_counters",
        "_driver",
        "_is_over",
        "_on_closed",
        "_query",
        "_reader",
        "_start",
        "_stream",
    )

    def __init__(
        self,
        stream: ByteStream,
        driver: Driver,
        query: Callable[[bytes], Awaitable[bytes]],
        start: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        counters: Counters,
        on_closed: Callable[[], None],
    ) -> None:
        self._stream = stream
        self._driver = driver
        self._query = query
        self._start = start
        self._counters = counters
        self._on_closed = on_closed
        self._reader = FrameReader(MAX_QUERY)
        self._asking: asyncio.Task[None] | None = None
        self._is_over = False

    def opened(self, now: float) -> None:
        """Never called at the exit."""

    def refused(self, code: ResetCode, now: float) -> None:
        """Cancel the query: the client has reset the stream."""
        self.aborted(code, now)

    def data_received(self, data: memoryview, now: float) -> None:
        """Take the query, in one piece or several. One longer than MAX_QUERY is refused."""
        self._stream.consumed(len(data), now)
        if self._is_over or self._asking is not None:
            return  # one query per stream: everything after it is ignored
        self._reader.feed(data)
        try:
            message = self._reader.take()
        except WireError:
            self._counters.drop("dns-query-too-long")
            self._end(ResetCode.PROTOCOL_ERROR)
            return
        if message is not None:
            self._reader.clear()
            self._asking = self._start(self._answer(message))

    def finished(self, now: float) -> None:
        """Note that the client sends nothing more."""
        if self._asking is None and not self._is_over:
            self._end(ResetCode.PROTOCOL_ERROR)

    def aborted(self, code: ResetCode, now: float) -> None:
        """Cancel the query: the client has reset the stream, or its session has ended."""
        self._is_over = True
        if self._asking is not None:
            self._asking.cancel()
        self._on_closed()

    def room_grew(self, now: float) -> None:
        """Do nothing: an answer is sent at once or not at all."""

    async def _answer(self, message: bytes) -> None:
        try:
            answer = await self._query(message)
        except DnsError as error:
            self._counters.drop(error.reason)
            self._end(ResetCode.HOST_UNREACHABLE)
            return
        stream = self._stream
        if stream.is_registered and not stream.resetting:
            framed = frame(answer)
            memory = stream.context.limits.memory
            if memory is not None and len(framed) > max(memory.spare(KEEP_TO_SEND), MIN_SEND):
                self._counters.drop("dns-answer-memory-full")
                self._end(ResetCode.LIMIT)
                return
            stream.send(framed, self._driver.clock())
            stream.finish()
        self._is_over = True
        self._on_closed()

    def _end(self, code: ResetCode) -> None:
        self._is_over = True
        self._reader.clear()
        self._stream.reset(code)
        self._on_closed()
