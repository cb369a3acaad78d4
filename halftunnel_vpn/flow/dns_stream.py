"""DNS over TCP (RFC 7766): a TCP flow to port 53 whose queries go to our resolver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import SessionError, UpstreamUnavailable
from halftunnel_vpn.flow.interfaces import Buffer, DnsOutcome, DnsPort, StreamHandler, StreamPort
from halftunnel_vpn.flow.named_dns_server import NamedServer
from halftunnel_vpn.flow.tcp.endpoint import TcpEndpoint
from halftunnel_vpn.protocol.dns_framing import LENGTH_BYTES, FrameReader, frame
from halftunnel_vpn.protocol.stream_messages import ResetCode
from halftunnel_vpn.timers import Wheel

ROOM: Final = 128 * 1024
"""Bytes of queries that one connection may buffer. The window closes beyond it."""

MAX_PIPELINED: Final = 64
"""Queries of one connection that may wait for an answer. Further queries stay in the buffer."""

MAX_UNREAD_ANSWERS: Final = 256 * 1024
"""Bytes of answers that a client may leave unread. Further queries stay in the buffer until it reads."""

IDLE: Final = 30.0
"""Seconds without a query or an answer after which a connection is closed (RFC 7766 section 6.2.3)."""

OpenServer: TypeAlias = Callable[[StreamHandler, float], StreamPort]
"""Open a stream to the server that the connection names. Raises SessionError, UpstreamUnavailable."""


class DnsStream:
    """Cut the stream into DNS messages and pass them to ``dns``.

    It implements StreamPort for its endpoint, and DnsClient for the server that the client has named.
    ``client`` is the client's address (4 or 16 bytes). ``open_server`` opens a stream to the named server,
    for messages that only this server can answer. It is None for a connection to our own resolver. Answers
    come later, so ``clock`` gives their time (monotonic seconds).
    """

    __slots__ = (
        "_asked",
        "_client",
        "_clock",
        "_counters",
        "_dns",
        "_endpoint",
        "_idle",
        "_is_asking",
        "_is_finished",
        "_is_over",
        "_last_used",
        "_open_server",
        "_reader",
        "_server",
        "_unread",
    )

    def __init__(
        self,
        endpoint: TcpEndpoint,
        dns: DnsPort,
        counters: Counters,
        clock: Callable[[], float],
        wheel: Wheel,
        client: bytes,
        open_server: OpenServer | None,
    ) -> None:
        self._endpoint = endpoint
        self._dns = dns
        self._counters = counters
        self._clock = clock
        self._client = client
        self._open_server = open_server
        self._server: NamedServer | None = None
        self._reader = FrameReader()
        # Queries that our resolver has not answered.
        self._asked = 0
        self._unread = 0
        # Whether the client has finished: it sends no more queries.
        self._is_finished = False
        self._is_over = False
        # Whether _ask_next is running. An answer that comes at once must not start it a second time.
        self._is_asking = False
        self._last_used = clock()
        self._idle = wheel.timer(self._check_idle)
        self._idle.arm(self._last_used + IDLE)

    # --- StreamPort ------------------------------------------------------------------------------

    fin_follows: Final = False
    offender: Final = b""

    @property
    def room(self) -> int:
        """The bytes of queries that the buffer still takes."""
        return max(ROOM - len(self._reader), 0)

    def send(self, data: Buffer, now: float) -> None:
        """Take a piece of the byte stream of queries. Pieces need not be whole messages."""
        if not self._is_over:
            self._last_used = self._clock()
            self._reader.feed(data)
            self._ask_next()

    def finish(self) -> None:
        """Close as soon as every query has an answer: the client sends no more queries."""
        self._is_finished = True
        if self._is_over:
            self._idle.cancel()
        self._ask_next()

    def reset(self, code: ResetCode) -> None:
        """End the connection: the client has reset it. Answers that come later are dropped."""
        self._end()
        if self._server is not None:
            self._server.reset(code)

    def consumed(self, count: int, now: float) -> None:
        """Note that the client has read ``count`` bytes of its answers."""
        self._unread -= count
        self.go_on()

    # --- DnsClient -------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Monotonic seconds."""
        return self._clock()

    def go_on(self) -> None:
        """Ask the buffered queries. Report new room to the client."""
        if self._is_over:
            return
        waited = len(self._reader)
        self._ask_next()
        if self._server is not None and self._unread < MAX_UNREAD_ANSWERS:
            self._server.read_on()
        if len(self._reader) < waited and not self._is_over:
            self._endpoint.room_grew(self._clock())

    def deliver(self, message: bytes) -> None:
        """Send a DNS message to the client."""
        if self._is_over:
            return
        self._unread += LENGTH_BYTES + len(message)
        now = self._last_used = self._clock()
        self._endpoint.data_received(memoryview(frame(message)), now)

    @property
    def has_enough(self) -> bool:
        """Whether the client leaves so many bytes unread that the named server has to wait."""
        return self._unread >= MAX_UNREAD_ANSWERS

    def server_finished(self) -> None:
        """Close if all is answered: the named server sends nothing more."""
        self._close_when_done()

    def server_failed(self, code: ResetCode) -> None:
        """Abort: the named server cannot be reached, or its connection is lost."""
        if not self._is_over:
            self._end()
            self._endpoint.aborted(code, self._clock())

    # ---------------------------------------------------------------------------------------------

    def _ask_next(self) -> None:
        """Ask every complete query within the bounds. Close if it was the last one."""
        if self._is_asking:
            return
        self._is_asking = True
        try:
            while not self._is_over and self._asked < MAX_PIPELINED and not self.has_enough:
                message = self._reader.peek()
                if message is None or not self._ask(message):
                    break
                self._reader.take()
        finally:
            self._is_asking = False
        self._close_when_done()

    def _ask(self, message: bytes) -> bool:
        """Ask one query; return whether it was accepted."""
        self._asked += 1
        outcome = self._dns.query(
            message,
            self._answered,
            stream=True,
            client=self._client,
            names_server=self._open_server is not None,
        )
        if outcome is DnsOutcome.ANSWERED:
            return True
        self._asked -= 1
        if outcome is DnsOutcome.FOR_SERVER:
            return self._ask_server(message)
        self._abort("dns-no-question", ResetCode.LIMIT)  # otherwise the client would wait for an answer
        return False

    def _ask_server(self, message: bytes) -> bool:
        """Pass a message on to the server that the client has named; return whether it was accepted."""
        server = self._server
        if server is None:
            assert self._open_server is not None
            server = self._server = NamedServer(self)
            try:
                server.stream = self._open_server(server, self._clock())
            except (SessionError, UpstreamUnavailable):
                self._server = None
                self._abort("dns-server-unreachable", ResetCode.NETWORK_UNREACHABLE)
                return False
            self._counters.count("dns-servers-named")
        if server.is_finished or not server.stream.room:
            return False
        server.stream.send(frame(message), self.now)
        return True

    def _answered(self, answer: bytes) -> None:
        if self._is_over:
            return
        self._asked -= 1
        self.deliver(answer)
        self.go_on()

    def _check_idle(self, now: float) -> None:
        """Close a connection without traffic for IDLE seconds. A named server closes its own connection."""
        if self._is_over:
            # We have closed our direction, and the client has never closed its own.
            self._counters.drop("dns-connection-left-open")
            self._endpoint.aborted(ResetCode.TIMED_OUT, now)
            return
        deadline = self._last_used + IDLE
        if self._asked or self._server is not None:
            deadline = max(deadline, now + IDLE)
        if now < deadline:
            self._idle.arm(deadline)
            return
        self._counters.count("dns-connections-idle")
        self._close()

    def _close_when_done(self) -> None:
        if self._is_over or self._asked:
            return
        server = self._server
        if server is None:
            is_done = self._is_finished and self._reader.peek() is None
        else:
            if self._is_finished and self._reader.peek() is None:
                server.finish()
            is_done = server.is_finished
        if is_done:
            self._close()
            if server is not None:
                server.finish()

    def _close(self) -> None:
        self._end()
        now = self._clock()
        self._endpoint.finished(now)
        if not self._is_finished:
            self._idle.arm(now + IDLE)

    def _abort(self, reason: str, code: ResetCode) -> None:
        self._counters.drop(reason)
        self._end()
        self._endpoint.aborted(code, self._clock())
        if self._server is not None:
            self._server.reset(code)

    def _end(self) -> None:
        self._is_over = True
        self._idle.cancel()
        self._reader.clear()
