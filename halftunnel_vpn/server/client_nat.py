"""Opens the streams of one client: each stream gets a socket or a DNS query."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

from halftunnel_vpn.errors import DnsError
from halftunnel_vpn.protocol.interfaces import DatagramHandler, StreamHandler
from halftunnel_vpn.protocol.keys import log_id
from halftunnel_vpn.protocol.service_address import SERVICE_HOST
from halftunnel_vpn.protocol.stream_messages import OpenRequest, ResetCode, StreamKind
from halftunnel_vpn.protocol.trace_ports import trace_fields
from halftunnel_vpn.server import exit_service
from halftunnel_vpn.server.nat import Nat, StreamPlace
from halftunnel_vpn.server.pending_tcp import TcpOpening
from halftunnel_vpn.server.relay_datagrams import DatagramRelay, RelayContext
from halftunnel_vpn.server.relay_dns import DnsRelay
from halftunnel_vpn.server.relay_icmp import IcmpRelay
from halftunnel_vpn.server.relay_udp import UdpRelay
from halftunnel_vpn.session.byte_stream import ByteStream
from halftunnel_vpn.session.datagram_stream import DatagramStream
from halftunnel_vpn.transport.relay.tcp_relay import TcpRelay

log = logging.getLogger(__name__)

ICMP_IDLE = 60.0
"""Seconds without an echo after which an ICMP stream ends."""


class ClientNat:
    """Opens streams for one client; implements Acceptor.

    ``opening`` is called for every stream that is opened. A DNS query is cancelled when its stream ends.
    """

    __slots__ = ("_client", "_context", "_meter", "_nat", "_opening")

    def __init__(self, nat: Nat, client: str, opening: Callable[[], None] = lambda: None) -> None:
        self._nat = nat
        self._client = client
        self._opening = opening
        self._meter = nat.meters.of(client)
        self._context = RelayContext(
            nat.driver, nat.watch, nat.batch, nat.policy, self._resolve, nat.counters, self._meter
        )

    def stream_opened(self, stream: ByteStream, request: OpenRequest, now: float) -> StreamHandler:
        """Return the handler of a TCP connection or a DNS query."""
        nat = self._nat
        if not self._admits(stream, request):
            return _OVER
        closed = StreamPlace(nat, self._client).give_back
        if request.kind is StreamKind.DNS:
            stream.accept()
            return DnsRelay(stream, nat.driver, self._query, nat.start, nat.counters, closed)
        if request.host == SERVICE_HOST:
            return self._serve(stream, request, closed)
        opening = TcpOpening(stream, nat.driver, nat.watch, self._meter, closed)
        if isinstance(request.host, str):
            if stream.trace is not None:
                stream.trace.looking_up()
            opening.lookup = nat.start(self._open_name(opening, request))
        else:
            self._dial(opening, [request.host], request)
        return opening

    def datagrams_opened(self, stream: DatagramStream, request: OpenRequest, now: float) -> DatagramHandler:
        """Return the handler of a UDP endpoint or a series of echo requests."""
        nat = self._nat
        if not self._admits(stream, request):
            return _OVER
        place = StreamPlace(nat, self._client)
        stream.accept()
        relay: type[DatagramRelay]
        if request.kind is StreamKind.ICMP:
            relay, idle_timeout = IcmpRelay, ICMP_IDLE
        else:
            relay, idle_timeout = UdpRelay, nat.limits.udp_idle
        return relay(stream, self._context, idle_timeout, place.room_for, place.give_back)

    def _serve(self, stream: ByteStream, request: OpenRequest, closed: Callable[[], None]) -> StreamHandler:
        """Answer a client about the exit itself."""
        nat = self._nat
        if request.port not in exit_service.PORTS:
            stream.reset(ResetCode.REFUSED)
            closed()
            return _OVER
        outside, inside = socket.socketpair()
        outside.setblocking(False)
        inside.setblocking(False)
        stream.accept()
        nat.start(exit_service.serve(inside, request.port, nat.counters))
        return TcpRelay(stream, outside, nat.driver, nat.watch, nat.counters, closed, self._meter)

    def _admits(self, stream: ByteStream | DatagramStream, request: OpenRequest) -> bool:
        """Count a new stream of the client. If it is not permitted, reset it and return False."""
        if log.isEnabledFor(logging.DEBUG):
            _log_stream(stream, request)
        self._opening()
        if self._nat.is_stopping:
            stream.reset(ResetCode.SHUTDOWN)
            return False
        if not self._nat.take(self._client):
            stream.reset(ResetCode.LIMIT)
            return False
        return True

    async def _query(self, message: bytes) -> bytes:
        answer = await self._nat.resolver.query(message, self._client)
        self._meter.sent += len(message)
        self._meter.received += len(answer)
        return answer

    async def _open_name(self, opening: TcpOpening, request: OpenRequest) -> None:
        assert isinstance(request.host, str)
        try:
            addresses = await self._nat.addresses_of(self._client, request.host)
        except DnsError as error:
            self._nat.counters.drop(error.reason)
            opening.failed(ResetCode.NAME_NOT_FOUND)
            return
        if not addresses:
            opening.failed(ResetCode.NAME_NOT_FOUND)
        elif not opening.is_over:
            self._dial(opening, addresses, request)

    def _dial(self, opening: TcpOpening, addresses: list[bytes], request: OpenRequest) -> None:
        permitted = [address for address in addresses if self._nat.policy.permits(address)]
        if not permitted:
            self._nat.counters.drop("egress-denied")
            opening.failed(ResetCode.DENIED)
            return
        if opening.trace is not None:
            opening.trace.dialing()
        opening.pending = self._nat.dialer.dial(
            self._client,
            permitted,
            request.port,
            opening.connected,
            opening.failed,
            hop_limit=request.hop_limit,
        )

    def _resolve(self, name: str, done: Callable[[list[bytes]], None]) -> Callable[[], object]:
        async def resolve() -> None:
            try:
                addresses = await self._nat.addresses_of(self._client, name)
            except DnsError as error:
                self._nat.counters.drop(error.reason)
                addresses = []
            done(addresses)

        return self._nat.start(resolve()).cancel


def _log_stream(stream: ByteStream | DatagramStream, request: OpenRequest) -> None:
    log.debug(
        "stream opened: %s",
        request.kind.name.lower(),
        extra={
            "id": log_id(stream.context.session_id),
            "stream": stream.stream_id,
            **trace_fields(stream.trace),
            "private": {"destination": request.destination},
        },
    )


class _Over:
    """The handler of a stream that was refused at once. It ignores everything that still arrives."""

    def opened(self, now: float) -> None: ...
    def refused(self, code: ResetCode, now: float) -> None: ...
    def data_received(self, data: memoryview, now: float) -> None: ...
    def run_received(self, data: memoryview, now: float) -> None: ...
    def finished(self, now: float) -> None: ...
    def aborted(self, code: ResetCode, now: float) -> None: ...
    def room_grew(self, now: float) -> None: ...


_OVER = _Over()
