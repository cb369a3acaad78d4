"""Plain HTTP requests to a proxy (RFC 9110 section 7): each is sent to its destination over a stream."""

from __future__ import annotations

import socket
from typing import Final

from halftunnel_vpn.http1.exchange import ServerSide
from halftunnel_vpn.http1.messages import MalformedMessage, RequestHead, Signal, UnsendableMessage
from halftunnel_vpn.protocol.host_encoding import Host
from halftunnel_vpn.protocol.interfaces import TransferableStream
from halftunnel_vpn.protocol.stream_messages import ResetCode
from halftunnel_vpn.proxy.forwarded_head import forwarded_request
from halftunnel_vpn.proxy.http_negotiation import answer, check_head
from halftunnel_vpn.proxy.origin import Origin, Progress
from halftunnel_vpn.proxy.parting import Parting
from halftunnel_vpn.proxy.proxy_context import OnClosed, ProxyContext
from halftunnel_vpn.proxy.refusals import Refusal
from halftunnel_vpn.proxy.stream_dial import StreamDial
from halftunnel_vpn.transport.listening_socket import drop
from halftunnel_vpn.transport.relay.socket_watch import ENDED, HUNG_UP, READABLE, WRITABLE

READ_SIZE: Final = 65_000
"""Bytes asked of the program's socket at once."""

IDLE: Final = 60.0
"""Seconds from one request of a connection to the next."""

ANSWER_TIME: Final = 900.0
"""Seconds without a byte in either direction while a request is served."""


class HttpForward:
    """Serves the requests of one connection, one after the other, until either side closes.

    A stream is used again for the next request to the same destination. Implements StreamHandler and
    ProxyConnection.
    """

    __slots__ = (
        "_backlog",
        "_context",
        "_destination",
        "_dial",
        "_exchange",
        "_has_more",
        "_head",
        "_idle",
        "_is_closed",
        "_is_ending",
        "_is_whole",
        "_on_closed",
        "_origin",
        "_parting",
        "_sock",
    )

    def __init__(
        self, sock: socket.socket, exchange: ServerSide, context: ProxyContext, on_closed: OnClosed
    ) -> None:
        self._sock = sock
        self._exchange = exchange
        self._context = context
        self._on_closed = on_closed
        self._origin = Origin()
        self._dial: StreamDial | None = None
        # The request that is served now, as it goes to the destination.
        self._head: RequestHead | None = None
        self._destination: tuple[Host, int] | None = None
        # Data that the program's socket has not accepted yet.
        self._backlog = bytearray()
        # Whether the program's request has ended, and whether more waits behind it.
        self._is_whole = False
        self._has_more = False
        # Whether the connection ends once everything is written, and the object that ends it.
        self._is_ending = False
        self._parting: Parting | None = None
        self._is_closed = False
        self._idle = context.driver.wheel.timer(self._too_slow)

    def close(self) -> None:
        """End it at once, at both ends."""
        self._end()

    def serve(self, head: RequestHead, now: float) -> None:
        """Send a request to its destination."""
        found = forwarded_request(head)
        assert found is not None  # check_head has checked it
        self._idle.arm(now + ANSWER_TIME)
        self._is_whole = self._has_more = False
        self._head = found.head
        destination = found.host, found.port
        self._context.counters.count("proxy-http-requests")
        is_same = self._origin.stream is not None and self._destination == destination
        if is_same and self._origin.start_next():
            self._send_head(now)
            return
        self._origin.leave(now)
        self._destination = destination
        self._dial = StreamDial(self._context, *destination, connected=self._connected, refused=self._refused)
        self._watch_program()
        self._dial.start(now)

    # --- towards the destination -----------------------------------------------------------------

    def _connected(self, stream: TransferableStream, now: float) -> None:
        self._dial = None
        self._origin.attach(stream)
        stream.handler = self
        self._send_head(now)

    def _refused(self, refusal: Refusal, now: float) -> None:
        self._dial = None
        self._fail(refusal, now)

    def _send_head(self, now: float) -> None:
        assert self._head is not None
        try:
            self._origin.request(self._head, now)
        except UnsendableMessage:
            self._fail(Refusal.MALFORMED, now)
            return
        self._pass_body(now)

    def _pass_body(self, now: float) -> None:
        """Forward the program's data, and read more while there is room."""
        try:
            while self._origin.stream is not None and not self._is_whole:
                part = self._exchange.next()
                if isinstance(part, bytes):
                    self._origin.data(part, now)
                elif part is Signal.END:
                    self._is_whole = True
                    self._origin.end(now)
                else:
                    break
        except (MalformedMessage, UnsendableMessage):
            self._fail(Refusal.MALFORMED, now)
            return
        self._watch_program()

    # --- the program -----------------------------------------------------------------------------

    def _watch_program(self) -> None:
        """Read while data can be forwarded; write while data waits."""
        if self._is_closed or self._parting is not None:
            return
        events = WRITABLE if self._backlog else 0
        if self._head is None:
            events |= READABLE | HUNG_UP
        elif self._is_whole:
            events |= 0 if self._has_more else HUNG_UP  # the next request waits in the socket
        elif self._origin.has_room:
            events |= READABLE | HUNG_UP
        self._context.watch.set(self._sock, events, self._ready)

    def _ready(self, sock: socket.socket, events: int) -> None:
        now = self._context.driver.clock()
        if events & WRITABLE and self._backlog:
            self._flush(now)
            if self._is_closed or self._parting is not None:
                return
        if self._head is not None and self._is_whole:
            if events & (HUNG_UP | ENDED):
                self._look_for_end()
        elif events & (READABLE | HUNG_UP | ENDED):
            self._read(now)

    def _look_for_end(self) -> None:
        """Abort while the answer is awaited, if the program has closed its side."""
        try:
            self._has_more = bool(self._sock.recv(1, socket.MSG_PEEK))
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._has_more = False
        if self._has_more:
            self._watch_program()
        else:
            self._end()

    def _read(self, now: float) -> None:
        try:
            data = self._sock.recv(READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._end()
            return
        self._idle.arm(now + (IDLE if self._head is None else ANSWER_TIME))
        try:
            self._exchange.feed(data)
        except MalformedMessage:
            self._fail(Refusal.MALFORMED, now)
            return
        if self._head is None:
            self._take_next(now)
        else:
            self._pass_body(now)

    def _take_next(self, now: float) -> None:
        """Begin with the next request, when its head is there."""
        try:
            part = self._exchange.next()
        except MalformedMessage:
            self._fail(Refusal.MALFORMED, now)
            return
        if not isinstance(part, RequestHead):
            if part is Signal.CLOSED:
                self._finish(now)
            self._watch_program()
            return
        problem = check_head(part, self._context.users)
        if problem is None and part.method != b"CONNECT":
            self.serve(part, now)
            return
        refusal = Refusal.COMMAND_NOT_SUPPORTED
        self._context.counters.drop(refusal.label if problem is None else problem.reason)
        status, sentence = refusal.http, refusal.sentence
        if problem is not None:
            status, sentence = problem.status, problem.sentence
        self._write(answer(self._exchange, status, sentence), now)
        self._finish(now)

    def _write(self, data: bytes, now: float) -> None:
        self._backlog += data
        self._flush(now)

    def _flush(self, now: float) -> None:
        if self._backlog:
            try:
                sent = self._sock.send(self._backlog)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError:
                self._end()
                return
            del self._backlog[:sent]
        if self._backlog:
            self._watch_program()
            return
        self._origin.return_credit(now)
        if not self._is_ending:
            self._watch_program()
        elif self._parting is None:
            self._parting = Parting(self._sock, self._context, self._closed)

    # --- StreamHandler ---------------------------------------------------------------------------

    def opened(self, now: float) -> None:
        """Never called: a dial has heard of it."""

    def refused(self, code: ResetCode, now: float) -> None:
        """Never called: a dial has heard of it."""

    def data_received(self, data: memoryview, now: float) -> None:
        """Take bytes of the destination. Credit is returned when the program has them."""
        self._from_origin(bytes(data), now)

    def finished(self, now: float) -> None:
        """Note that the destination sends nothing more."""
        self._from_origin(b"", now)

    def aborted(self, code: ResetCode, now: float) -> None:
        """Abort: the stream or the session has ended."""
        self._origin.lost()
        if self._head is not None:
            self._fail(Refusal.FAILED, now)

    def room_grew(self, now: float) -> None:
        """Forward more: the stream has room again."""
        self._watch_program()

    def _from_origin(self, data: bytes, now: float) -> None:
        if self._origin.stream is None:
            return
        if self._head is not None:
            self._idle.arm(now + ANSWER_TIME)
        written, progress = self._origin.answer(data, self._exchange)
        if progress is Progress.MORE and self._head is None and not data:
            self._origin.leave(now)  # between two requests
        self._write(written, now)
        if progress is Progress.COMPLETE:
            self._answered(now)
        elif progress is Progress.BROKEN:
            self._fail(Refusal.FAILED, now)

    def _answered(self, now: float) -> None:
        """The response is complete."""
        self._head = None
        if self._is_closed:
            return
        self._idle.arm(now + IDLE)
        if not self._exchange.is_over:
            self._finish(now)  # the program does not want another one, or has not sent all of this one
            return
        if self._origin.is_spent:
            self._origin.leave(now)
        self._exchange.start_next()
        self._take_next(now)

    # --- the end ---------------------------------------------------------------------------------

    def _fail(self, refusal: Refusal, now: float) -> None:
        """Answer with an error if there is still time for that, otherwise cut the response off."""
        self._context.counters.drop(refusal.label)
        is_head = self._head is not None and self._head.method == b"HEAD"
        written = answer(self._exchange, refusal.http, refusal.sentence, head_only=is_head)
        if not written:
            self._end()
            return
        self._write(written, now)
        self._finish(now)

    def _finish(self, now: float) -> None:
        """Close once everything is written."""
        if self._is_closed or self._is_ending:
            return
        self._is_ending = True
        self._origin.leave(now)
        self._flush(now)

    def _too_slow(self, now: float) -> None:
        if self._head is None:
            self._finish(now)
        else:
            self._context.counters.drop("proxy-http-timeout")
            self._end()

    def _end(self) -> None:
        """Cut both connections."""
        if self._parting is not None:
            self._parting.close()
        elif not self._is_closed:
            self._context.watch.forget(self._sock)
            drop(self._sock)
            self._closed()

    def _closed(self) -> None:
        self._is_closed = True
        self._idle.cancel()
        if self._dial is not None:
            self._dial.cancel()
            self._dial = None
        self._origin.leave(self._context.driver.clock())
        self._on_closed()
