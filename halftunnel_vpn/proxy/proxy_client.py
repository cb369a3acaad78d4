"""One connection of a program: the request, the answer, and the object that passes on its bytes."""

from __future__ import annotations

import socket

from halftunnel_vpn.protocol.interfaces import TransferableStream
from halftunnel_vpn.protocol.stream_messages import ResetCode
from halftunnel_vpn.proxy.http_forward import HttpForward
from halftunnel_vpn.proxy.http_negotiation import HttpNegotiation
from halftunnel_vpn.proxy.negotiation import Command, Negotiation, ProxyRequest
from halftunnel_vpn.proxy.parting import Parting
from halftunnel_vpn.proxy.proxy_context import OnClosed, ProxyConnection, ProxyContext
from halftunnel_vpn.proxy.refusals import Refusal
from halftunnel_vpn.proxy.stream_dial import StreamDial
from halftunnel_vpn.proxy.udp_association import UdpAssociation
from halftunnel_vpn.transport.listening_socket import drop
from halftunnel_vpn.transport.relay.socket_watch import HUNG_UP, READABLE
from halftunnel_vpn.transport.relay.tcp_relay import TcpRelay

NEGOTIATION_TIME = 30.0
"""Seconds that a program has for its request."""

READ_SIZE = 4096
"""Bytes asked of a socket at once before the request is known."""


class ProxyClient:
    """Owns ``sock`` until it is closed; calls ``on_closed`` then. Implements ProxyConnection."""

    __slots__ = (
        "_context",
        "_dial",
        "_is_closed",
        "_negotiation",
        "_next",
        "_on_closed",
        "_patience",
        "_sock",
        "_stream",
    )

    def __init__(
        self, sock: socket.socket, negotiation: Negotiation, context: ProxyContext, on_closed: OnClosed
    ) -> None:
        self._sock = sock
        self._negotiation = negotiation
        self._context = context
        self._on_closed = on_closed
        self._dial: StreamDial | None = None
        # The new owner of the socket, unless it is a relay, which ends with its stream.
        self._next: ProxyConnection | None = None
        self._stream: TransferableStream | None = None
        self._is_closed = False
        self._patience = context.driver.wheel.timer(self._too_slow)

    def start(self) -> None:
        """Wait for the request; dial at once for a forwarded port."""
        now = self._context.driver.clock()
        if self._negotiation.request is not None:
            self._serve(self._negotiation.request, now)
            return
        self._patience.arm(now + NEGOTIATION_TIME)
        self._context.watch.set(self._sock, READABLE | HUNG_UP, self._readable)

    def close(self) -> None:
        """End it at once, at both ends."""
        if self._next is not None:
            self._next.close()
        elif self._stream is not None:
            relay = self._stream.handler
            self._stream.reset(ResetCode.NORMAL)
            relay.aborted(ResetCode.NORMAL, self._context.driver.clock())
        else:
            self._end()

    # --- negotiation -----------------------------------------------------------------------------

    def _readable(self, sock: socket.socket, events: int) -> None:
        try:
            data = sock.recv(READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._end()
            return
        negotiation = self._negotiation
        negotiation.receive(data)
        if not self._write(negotiation.outgoing()):
            return
        if negotiation.is_over:
            self._patience.cancel()
            self._part()
        elif negotiation.request is not None:
            self._patience.cancel()
            self._serve(negotiation.request, self._context.driver.clock())

    def _too_slow(self, now: float) -> None:
        self._context.counters.drop("proxy-request-timeout")
        self._end()

    def _write(self, data: bytes) -> bool:
        """Write an answer; return False when the connection has ended because it does not fit."""
        if not data:
            return True
        try:
            if self._sock.send(data) == len(data):
                return True
        except OSError:
            pass
        self._context.counters.drop("proxy-answer-unsent")  # a socket has room for a first answer
        self._end()
        return False

    # --- the request -----------------------------------------------------------------------------

    def _serve(self, request: ProxyRequest, now: float) -> None:
        context = self._context
        if request.command is Command.CONNECT:
            # until the exit has answered only the end of the connection is of interest
            context.watch.set(self._sock, 0, self._ended_while_dialling)
            context.counters.count("proxy-connects")
            self._dial = StreamDial(
                context, request.host, request.port, connected=self._connected, refused=self._refused
            )
            self._dial.start(now)
        elif request.command is Command.UDP_ASSOCIATE:
            self._associate()
        else:
            negotiation = self._negotiation
            assert isinstance(negotiation, HttpNegotiation) and negotiation.head is not None
            context.watch.remove(self._sock)
            context.counters.count("proxy-http-connections")
            self._next = forward = HttpForward(self._sock, negotiation.exchange, context, self._closed)
            forward.serve(negotiation.head, now)

    def _ended_while_dialling(self, sock: socket.socket, events: int) -> None:
        self._end()

    def _connected(self, stream: TransferableStream, now: float) -> None:
        self._dial = None
        negotiation, context = self._negotiation, self._context
        if not self._write(negotiation.granted()):
            stream.reset(ResetCode.NORMAL)
            return
        self._stream = stream
        stream.handler = TcpRelay(
            stream, self._sock, context.driver, context.watch, context.counters, self._closed
        )
        early = negotiation.rest()
        if early:
            stream.send(early, now)

    def _refused(self, refusal: Refusal, now: float) -> None:
        self._dial = None
        if self._write(self._negotiation.refused(refusal)):
            self._part()

    def _associate(self) -> None:
        context = self._context
        context.watch.remove(self._sock)
        association = UdpAssociation(self._sock, context, self._closed)
        try:
            address, port = association.open()
        except OSError:
            context.counters.drop("proxy-udp-no-socket")
            if self._write(self._negotiation.refused(Refusal.FAILED)):
                self._part()
            return
        self._next = association
        if not self._write(self._negotiation.granted(address, port)):
            association.close()

    # --- the end ---------------------------------------------------------------------------------

    def _part(self) -> None:
        """Close after a last answer."""
        self._next = Parting(self._sock, self._context, self._closed)

    def _end(self) -> None:
        """Cut the connection, whose socket nobody else has taken over."""
        if self._is_closed:
            return
        if self._dial is not None:
            self._dial.cancel()
            self._dial = None
        self._context.watch.forget(self._sock)
        drop(self._sock)
        self._closed()

    def _closed(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._patience.cancel()
            self._next = self._stream = None  # a closed one must not wait for the garbage collector
            self._on_closed()
