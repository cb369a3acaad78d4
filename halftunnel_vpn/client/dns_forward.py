"""DNS queries through the tunnel: one stream each, framed as in TCP (RFC 7766 section 8)."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

from halftunnel_vpn.client.settings import dns_config
from halftunnel_vpn.config.client import ClientProfile
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.dns.dns_service import DnsService
from halftunnel_vpn.dns.upstream import DirectResolvers
from halftunnel_vpn.errors import DnsError, UpstreamUnavailable
from halftunnel_vpn.protocol.dns_framing import FrameReader, frame
from halftunnel_vpn.protocol.interfaces import StreamOpener, StreamPort
from halftunnel_vpn.protocol.stream_messages import OpenRequest, ResetCode, StreamKind


class DnsExchange:
    """One pending query; implements StreamHandler. ``answer`` is done when the exit has answered."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.stream: StreamPort
        self._reader = FrameReader()

    def opened(self, now: float) -> None:
        """Do nothing: the exit has accepted the query."""

    def refused(self, code: ResetCode, now: float) -> None:
        """Fail: the exit has no resolver, or no room."""
        self._fail(code)

    def data_received(self, data: memoryview, now: float) -> None:
        """Take the answer, in one piece or several. More data resets the stream."""
        self.stream.consumed(len(data), now)
        if self.answer.done():
            self.stream.reset(ResetCode.PROTOCOL_ERROR)
            return
        self._reader.feed(data)
        message = self._reader.take()
        if message is not None:
            self._reader.clear()
            self.answer.set_result(message)

    def finished(self, now: float) -> None:
        """Fail if the answer is incomplete: nothing more comes."""
        self._fail(ResetCode.PROTOCOL_ERROR)

    def aborted(self, code: ResetCode, now: float) -> None:
        """Fail: the exit found no answer, or the session is lost."""
        self._fail(code)

    def room_grew(self, now: float) -> None:
        """Do nothing: a query always fits."""

    def _fail(self, code: ResetCode) -> None:
        if not self.answer.done():
            self.answer.set_exception(DnsError("dns-no-answer", code.name))


class DnsForwarder:
    """Queries the exit's resolvers over ``opener``."""

    def __init__(self, opener: StreamOpener, clock: Callable[[], float]) -> None:
        self._opener = opener
        self._clock = clock

    async def __call__(self, message: bytes) -> bytes:
        """Return the answer to ``message``. Raises SessionError, or DnsError if there is no answer."""
        exchange = DnsExchange()
        request = OpenRequest(StreamKind.DNS, b"", 0, 0)
        try:
            stream = exchange.stream = self._opener.open_stream(request, exchange, self._clock())
        except UpstreamUnavailable as error:
            raise DnsError("dns-path-lost", str(error)) from error
        stream.send(frame(message), self._clock())
        stream.finish()
        try:
            return await exchange.answer
        except asyncio.CancelledError:
            stream.reset(ResetCode.TIMED_OUT)
            raise


def make_dns_service(
    profile: ClientProfile, opener: StreamOpener, clock: Callable[[], float], counters: Counters
) -> DnsService:
    """Return the resolver of this host: through the tunnel, and outside it for split domains."""
    return DnsService(
        dns_config(profile),
        DnsForwarder(opener, clock),
        DirectResolvers(counters=counters, mark=profile.routes.mark),
        clock,
        counters,
        first_fake=int.from_bytes(secrets.token_bytes(2), "big"),
    )
