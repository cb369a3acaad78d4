"""The NAT table: which socket serves which stream, with limits per client and in all."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.dns.upstream import UpstreamResolver
from halftunnel_vpn.errors import DnsError
from halftunnel_vpn.protocol.interfaces import DatagramHandler, StreamHandler
from halftunnel_vpn.protocol.keys import log_id
from halftunnel_vpn.protocol.stream_messages import OpenRequest, ResetCode, StreamKind
from halftunnel_vpn.server.datagram_batch import DatagramBatch
from halftunnel_vpn.server.dialing import Dialer
from halftunnel_vpn.server.egress import EgressPolicy
from halftunnel_vpn.server.pending_tcp import TcpOpening
from halftunnel_vpn.server.relay_datagrams import DatagramRelay
from halftunnel_vpn.server.relay_dns import DnsRelay
from halftunnel_vpn.server.relay_icmp import IcmpRelay
from halftunnel_vpn.server.relay_udp import UdpRelay
from halftunnel_vpn.session.byte_stream import ByteStream
from halftunnel_vpn.session.datagram_stream import DatagramStream
from halftunnel_vpn.transport.driver import Driver

log = logging.getLogger(__name__)

ICMP_IDLE = 60.0
"""Seconds without an echo after which an ICMP stream is forgotten."""


class Nat:
    """Opens what clients ask for. Shared by every session of the exit; :meth:`for_client` makes the Acceptor.

    ``start`` runs a coroutine as an owned task. A question to resolvers is
    cancelled when the stream that asks it ends.
    """

    def __init__(
        self,
        driver: Driver,
        policy: EgressPolicy,
        dialer: Dialer,
        resolver: UpstreamResolver,
        *,
        udp_idle: float,
        streams_per_client: int,
        max_streams: int,
        has_ipv6: Callable[[], bool],
        start: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        counters: Counters,
    ) -> None:
        self.driver = driver
        self.watch = dialer.watch
        self.batch = DatagramBatch()
        self.policy = policy
        self.dialer = dialer
        self.resolver = resolver
        self.udp_idle = udp_idle
        self.has_ipv6 = has_ipv6
        self.start = start
        self.counters = counters
        self._streams_per_client = streams_per_client
        self._max_streams = max_streams
        self._streams: dict[str, int] = {}
        self.total = 0
        self.is_stopping = False
        """Whether new streams are refused because the exit goes away."""

    def for_client(self, client: str, opening: Callable[[], None] = lambda: None) -> ClientNat:
        """The Acceptor of one client's session; ``opening`` is called for every stream that is opened."""
        return ClientNat(self, client, opening)

    def set_limits(self, *, streams_per_client: int, max_streams: int) -> None:
        """Change how many streams there may be; those beyond stay until they end."""
        self._streams_per_client = streams_per_client
        self._max_streams = max_streams

    def take(self, client: str) -> bool:
        """Count one more stream of ``client``, or socket of one; False at a limit."""
        used = self._streams.get(client, 0)
        if used >= self._streams_per_client or self.total >= self._max_streams:
            self.counters.drop("stream-limit")
            return False
        self._streams[client] = used + 1
        self.total += 1
        return True

    def give_back(self, client: str) -> None:
        """A stream of ``client`` is over."""
        self.total -= 1
        self._streams[client] -= 1
        if not self._streams[client]:
            del self._streams[client]

    async def addresses_of(self, client: str, name: str) -> list[bytes]:
        """The addresses of ``name``, IPv6 and IPv4 in turn (RFC 8305 section 4); empty if it has none.

        Raises DnsError when the resolvers cannot be asked, or not for ``client`` now (see ClientTurns).
        """
        found: dict[int, list[bytes]] = {6: [], 4: []}
        failure: DnsError | None = None
        versions = (6, 4) if self.has_ipv6() else (4,)
        questions = [self.resolver.resolve(name, version, client) for version in versions]
        outcomes = await asyncio.gather(*questions, return_exceptions=True)
        for version, outcome in zip(versions, outcomes, strict=True):
            if isinstance(outcome, DnsError):
                failure = outcome
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                found[version] = [ipaddress.ip_address(text).packed for text in outcome]
        if failure is not None and not any(found.values()):
            raise failure
        longest = max(len(found[6]), len(found[4]))
        return [one for i in range(longest) for version in (6, 4) for one in found[version][i : i + 1]]


class ClientNat:
    """Opens streams for one client; implements Acceptor."""

    __slots__ = ("_client", "_nat", "_opening")

    def __init__(self, nat: Nat, client: str, opening: Callable[[], None]) -> None:
        self._nat = nat
        self._client = client
        self._opening = opening

    def stream_opened(self, stream: ByteStream, request: OpenRequest, now: float) -> StreamHandler:
        """A TCP connection or a DNS query."""
        nat = self._nat
        if log.isEnabledFor(logging.DEBUG):
            _log_stream(stream, request)
        self._opening()
        if nat.is_stopping:
            stream.reset(ResetCode.SHUTDOWN)
            return _OVER
        if not nat.take(self._client):
            stream.reset(ResetCode.LIMIT)
            return _OVER
        closed = _Place(nat, self._client).give_back
        if request.kind is StreamKind.DNS:
            stream.accept()
            return DnsRelay(stream, nat.driver, self._query, nat.start, nat.counters, closed)
        opening = TcpOpening(stream, nat.driver, nat.watch, closed)
        if isinstance(request.host, str):
            opening.lookup = nat.start(self._open_name(opening, request))
        else:
            self._dial(opening, [request.host], request)
        return opening

    def datagrams_opened(self, stream: DatagramStream, request: OpenRequest, now: float) -> DatagramHandler:
        """A UDP endpoint or a series of echo requests."""
        nat = self._nat
        if log.isEnabledFor(logging.DEBUG):
            _log_stream(stream, request)
        self._opening()
        if nat.is_stopping:
            stream.reset(ResetCode.SHUTDOWN)
            return _OVER
        if not nat.take(self._client):
            stream.reset(ResetCode.LIMIT)
            return _OVER
        place = _Place(nat, self._client)
        stream.accept()
        relay: type[DatagramRelay]
        if request.kind is StreamKind.ICMP:
            relay, idle_timeout = IcmpRelay, ICMP_IDLE
        else:
            relay, idle_timeout = UdpRelay, nat.udp_idle
        return relay(
            stream,
            nat.driver,
            nat.watch,
            nat.batch,
            nat.policy,
            self._resolve,
            idle_timeout,
            nat.counters,
            place.room_for,
            place.give_back,
        )

    async def _query(self, message: bytes) -> bytes:
        return await self._nat.resolver.query(message, self._client)

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
            "private": {"destination": request.destination},
        },
    )


class _Over:
    """Handler of a stream that was refused at once: nothing that still arrives matters."""

    def opened(self, now: float) -> None: ...
    def refused(self, code: ResetCode, now: float) -> None: ...
    def data_received(self, data: memoryview, now: float) -> None: ...
    def run_received(self, data: memoryview, now: float) -> None: ...
    def finished(self, now: float) -> None: ...
    def aborted(self, code: ResetCode, now: float) -> None: ...
    def room_grew(self, now: float) -> None: ...


_OVER = _Over()


class _Place:
    """That of one stream of ``client`` in the NAT table: one for its socket, and one for each further one."""

    __slots__ = ("_client", "_nat", "_taken")

    def __init__(self, nat: Nat, client: str) -> None:
        self._client = client
        self._nat = nat
        self._taken = 1

    def room_for(self, sockets: int) -> bool:
        """Whether the stream may have ``sockets`` sockets; at most one more than before."""
        if sockets > self._taken:
            if not self._nat.take(self._client):
                return False
            self._taken += 1
        return True

    def give_back(self) -> None:
        """The stream is over; told again it does nothing."""
        for _ in range(self._taken):
            self._nat.give_back(self._client)
        self._taken = 0
