"""DNS over TCP (RFC 7766): a TCP flow to port 53 that ends here and asks the resolver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.flow.interfaces import Buffer, DnsPort
from halftunnel_vpn.flow.tcp.endpoint import TcpEndpoint
from halftunnel_vpn.protocol.stream_messages import ResetCode

LENGTH_BYTES: Final = 2
"""Bytes of the length in front of every message (RFC 1035 section 4.2.2)."""

ROOM: Final = 128 * 1024
"""Bytes of queries that one connection may have on the way."""

MAX_PIPELINED: Final = 64
"""Queries of one connection that may wait for an answer; more close it."""

MAX_UNREAD_ANSWERS: Final = 1024 * 1024
"""Bytes of answers that a client may leave unread; more close the connection."""


class DnsStream:
    """Frames messages by their length and gives them to ``dns``; implements StreamPort for its endpoint.

    Answers come when they come, so the time is asked of ``clock`` (monotonic seconds).
    """

    __slots__ = (
        "_asked",
        "_clock",
        "_counters",
        "_dns",
        "_endpoint",
        "_is_finished",
        "_is_over",
        "_received",
        "_unread",
    )

    def __init__(
        self, endpoint: TcpEndpoint, dns: DnsPort, counters: Counters, clock: Callable[[], float]
    ) -> None:
        self._endpoint = endpoint
        self._dns = dns
        self._counters = counters
        self._clock = clock
        self._received = bytearray()
        self._asked = 0
        self._unread = 0
        self._is_finished = False
        self._is_over = False

    # --- StreamPort ------------------------------------------------------------------------------

    fin_follows: Final = False

    @property
    def room(self) -> int:
        """Bytes of queries that are still welcome."""
        return max(ROOM - len(self._received), 0)

    def send(self, data: Buffer) -> None:
        """Queries, in any pieces."""
        received = self._received
        received += data
        while len(received) >= LENGTH_BYTES and not self._is_over:
            end = LENGTH_BYTES + int.from_bytes(received[:LENGTH_BYTES], "big")
            if len(received) < end:
                return
            message = bytes(received[LENGTH_BYTES:end])
            del received[:end]
            if self._asked >= MAX_PIPELINED:
                self._break_off("dns-too-many-pipelined")
                return
            self._asked += 1
            if not self._dns.query(message, self._answered, stream=True):
                self._break_off("dns-no-question")  # or the connection would wait for an answer for ever
                return

    def finish(self) -> None:
        """The client asks nothing more: close once everything is answered."""
        self._is_finished = True
        self._close_when_done()

    def reset(self, code: ResetCode) -> None:
        """The client is gone; answers still under way go nowhere."""
        self._is_over = True

    def consumed(self, count: int) -> None:
        """The client has read some of its answers."""
        self._unread -= count

    # ---------------------------------------------------------------------------------------------

    def _answered(self, answer: bytes) -> None:
        if self._is_over:
            return
        self._asked -= 1
        self._unread += LENGTH_BYTES + len(answer)
        if self._unread > MAX_UNREAD_ANSWERS:
            self._break_off("dns-answers-unread")
            return
        framed = len(answer).to_bytes(LENGTH_BYTES, "big") + answer
        self._endpoint.data_received(memoryview(framed), self._clock())
        self._close_when_done()

    def _close_when_done(self) -> None:
        if self._is_finished and not self._asked and not self._is_over:
            self._is_over = True
            self._endpoint.finished(self._clock())

    def _break_off(self, reason: str) -> None:
        self._counters.drop(reason)
        self._is_over = True
        self._endpoint.aborted(ResetCode.LIMIT, self._clock())
