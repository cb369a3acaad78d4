"""Opening a leg: name, TCP, perhaps a proxy, perhaps TLS, one HTTP upgrade."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import cast

from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.exceptions import InvalidURI
from websockets.uri import WebSocketURI, parse_uri

from halftunnel_vpn.config.net import UPGRADE_HEADERS
from halftunnel_vpn.config.shared import SYSTEM_CONGESTION
from halftunnel_vpn.errors import ConfigError, PeerError, RoadError
from halftunnel_vpn.protocol.records import MAX_RECORD
from halftunnel_vpn.transport.browser_request import upgrade_headers
from halftunnel_vpn.transport.connect import Resolver, SocketAddress, connect, resolve
from halftunnel_vpn.transport.http_head import HeadReader, header, parse_status
from halftunnel_vpn.transport.http_proxy import connect_through, parse_proxy
from halftunnel_vpn.transport.leg import Leg, LegListener
from halftunnel_vpn.transport.tls import EarlyBytes, client_context, encrypt
from halftunnel_vpn.transport.tls_failure import certificate_failure, tls_failure
from halftunnel_vpn.transport.websockets_log import WEBSOCKET_LOGGER

CONNECT_TIMEOUT = 10.0
"""Seconds from the name to the end of the upgrade."""

SHARE_OF_NAMES = 0.9
"""Share of the time of a dial that finding the address may take."""

_HEADER_NAME = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_HEADER_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")


@dataclass(frozen=True, slots=True)
class DialOptions:
    """How to reach the entry of a path, beyond its URL. Raises ConfigError."""

    ca_pem: str | None = None
    """The only authorities trusted, in PEM form; None: the system's."""
    certificate_sha256: tuple[bytes, ...] = ()
    """SHA-256 of certificates (DER), one of which the server must show; empty: any that is trusted."""
    server_name: str | None = None
    """The name asked for in TLS (SNI), which the certificate must carry; None: the URL's host."""
    host_header: str | None = None
    """The Host header; None: the URL's host and port."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Request headers of one's own, in place of a browser's or besides; an empty value removes one."""
    proxy: str | None = None
    """``http://[USER:PASSWORD@]HOST:PORT``, to be asked for a tunnel with CONNECT."""
    mark: int | None = None
    """SO_MARK of the socket, so that the tunnel's own connections stay out of the tunnel."""
    connect_timeout: float = CONNECT_TIMEOUT
    """Seconds from the name to the end of the upgrade."""
    resolve: Resolver | None = None
    """Finds addresses in place of the system's resolver."""
    congestion: str = SYSTEM_CONGESTION
    """Congestion control of the socket, where the kernel allows it."""

    def __post_init__(self) -> None:
        if any(len(pin) != 32 for pin in self.certificate_sha256):
            raise ConfigError("the hash of the pinned certificate must have 32 bytes (SHA-256)")
        for name, value in {**self.headers, "Host": self.host_header or ""}.items():
            if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
                raise ConfigError(f"{name!r}: {value!r} is not an HTTP header; remove control characters")
        for name in self.headers:
            if name.lower() in UPGRADE_HEADERS:
                raise ConfigError(f"the header {name!r} is the upgrade's own: remove it from [tls] headers")
        if self.proxy is not None:
            parse_proxy(self.proxy)


async def dial(
    url: str,
    options: DialOptions,
    listener: LegListener,
    *,
    clock: Callable[[], float] = time.monotonic,
    advanced: Callable[[], None] = lambda: None,
) -> Leg:
    """Open a leg to ``ws://`` or ``wss://``; ``listener.leg_opened`` has been called when this returns.

    ``advanced`` is called after each step that takes a round trip: connected, tunnelled, TLS agreed.

    Raises RoadError with one of these reasons, and ConfigError for an invalid URL or option:
    name-not-resolved, name-timeout, connection-refused, connection-reset, connect-timeout, connect-failed,
    host-unreachable, network-unreachable, mark-not-permitted, proxy-refused, proxy-timeout,
    proxy-authentication-required, certificate-not-trusted, certificate-expired,
    certificate-not-yet-valid, certificate-wrong-name, certificate-not-pinned, bytes-before-tls, tls-failed,
    tls-timeout, http-status-NNN, not-a-websocket, handshake-timeout, closed-in-handshake.
    """
    uri = _parse_url(url)
    context = (
        client_context(options.ca_pem, leaf_is_pinned=bool(options.certificate_sha256))
        if uri.secure
        else None
    )
    deadline = asyncio.get_running_loop().time() + options.connect_timeout
    try:
        return await _dial(uri, options, context, listener, clock, advanced, deadline)
    except _CompressionAgreed:
        # A browser offers it and no exit takes it: something in front of the exit ends the WebSocket itself.
        without = replace(options, headers={**options.headers, "Sec-WebSocket-Extensions": ""})
        return await _dial(uri, without, context, listener, clock, advanced, deadline)


class _CompressionAgreed(RoadError):
    """The server has taken the compression that was offered to look like a browser."""


async def _dial(
    uri: WebSocketURI,
    options: DialOptions,
    context: ssl.SSLContext | None,
    listener: LegListener,
    clock: Callable[[], float],
    advanced: Callable[[], None],
    deadline: float,
) -> Leg:
    sock = await _connect(uri, options, deadline, advanced)
    advanced()
    upgrade = _Upgrade(uri, listener, clock)
    try:
        # From here on a transport owns the socket.
        if context is None:
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_connection(lambda: upgrade, sock=sock)
        else:
            transport = await _secure(sock, upgrade, uri, options, context, deadline)
            advanced()
        upgrade.use(transport)
        upgrade.check_pin(options.certificate_sha256)
        async with _within(deadline, "handshake-timeout", f"{_where(uri)} does not answer the upgrade"):
            upgrade.begin(options)
            return await upgrade.finished
    except BaseException:
        upgrade.abort()
        raise
    finally:
        upgrade.forget()


async def _connect(
    uri: WebSocketURI, options: DialOptions, deadline: float, advanced: Callable[[], None]
) -> socket.socket:
    """Return a TCP connection that ends at the URL's host, by the proxy if there is one."""
    proxy = parse_proxy(options.proxy) if options.proxy is not None else None
    host, port = (uri.host, uri.port) if proxy is None else (proxy.host, proxy.port)
    resolver = _in_time(options.resolve or resolve, deadline)
    async with _within(deadline, "connect-timeout", f"{host} port {port} does not answer"):
        sock = await connect(host, port, resolver=resolver, mark=options.mark, congestion=options.congestion)
    if proxy is not None:
        advanced()
        try:
            async with _within(deadline, "proxy-timeout", f"the proxy {proxy.name} does not answer"):
                await connect_through(sock, proxy, uri.host, uri.port)
        except BaseException:
            sock.close()
            raise
    return sock


def _in_time(resolver: Resolver, deadline: float) -> Resolver:
    """Wrap ``resolver`` with most of the time left until ``deadline``, so the error names what was late."""

    async def resolve_in_time(host: str, port: int) -> list[SocketAddress]:
        now = asyncio.get_running_loop().time()
        until = now + SHARE_OF_NAMES * (deadline - now)
        async with _within(until, "name-timeout", f"no resolver of this machine answers for {host}"):
            return await resolver(host, port)

    return resolve_in_time


async def _secure(
    sock: socket.socket,
    upgrade: _Upgrade,
    uri: WebSocketURI,
    options: DialOptions,
    context: ssl.SSLContext,
    deadline: float,
) -> asyncio.Transport:
    """Put TLS between the connection and ``upgrade``."""
    server_name = (options.server_name or uri.host).removesuffix(".")  # no certificate has the final dot
    server = _where(uri) if server_name == uri.host.removesuffix(".") else f"{_where(uri)} (as {server_name})"
    try:
        async with _within(deadline, "tls-timeout", f"{server} does not answer in TLS"):
            # Its own limit is a little more than the deadline, which has the better message.
            limit = options.connect_timeout + 1
            return await encrypt(sock, upgrade, context, server_name=server_name, deadline=limit)
    except ssl.SSLCertVerificationError as error:
        raise certificate_failure(error, server) from error
    except EarlyBytes as error:
        raise RoadError(
            f"{server} sent bytes before TLS began: check the port and what stands between",
            reason="bytes-before-tls",
        ) from error
    except OSError as error:
        raise tls_failure(error, server) from error


class _Upgrade(asyncio.Protocol):
    """The client's side of the upgrade; makes the leg."""

    def __init__(self, uri: WebSocketURI, listener: LegListener, clock: Callable[[], float]) -> None:
        self._websocket = ClientProtocol(uri, max_size=MAX_RECORD, logger=WEBSOCKET_LOGGER)
        self.finished: asyncio.Future[Leg] = asyncio.get_running_loop().create_future()
        self._where = _where(uri)
        self._is_secure = uri.secure
        self._listener = listener
        self._clock = clock
        self._reader = HeadReader()
        self._transport: asyncio.Transport | None = None

    def use(self, transport: asyncio.Transport) -> None:
        """Talk by way of this transport from now on."""
        self._transport = transport

    def check_pin(self, certificate_sha256: tuple[bytes, ...]) -> None:
        """Raise RoadError(certificate-not-pinned) if the server has shown another certificate."""
        assert self._transport is not None
        tls = self._transport.get_extra_info("ssl_object")
        if tls is None or not certificate_sha256:
            return
        shown = hashlib.sha256(tls.getpeercert(True)).digest()
        if not any(hmac.compare_digest(shown, pin) for pin in certificate_sha256):
            raise RoadError(
                f"the certificate of {self._where} is not the one that the profile pins: "
                f"get a fresh profile from the exit server, or find out what answers in its place",
                reason="certificate-not-pinned",
            )

    def begin(self, options: DialOptions) -> None:
        """Send the request, as a browser does."""
        assert self._transport is not None
        request = self._websocket.connect()
        request.headers = Headers(
            upgrade_headers(
                options.host_header or request.headers["Host"],
                request.headers["Sec-WebSocket-Key"],
                is_secure=self._is_secure,
                own=options.headers,
            )
        )
        self._websocket.send_request(request)
        self._transport.write(b"".join(self._websocket.data_to_send()))

    def abort(self) -> None:
        """Drop the connection, if there is one."""
        if self._transport is not None:
            self._transport.abort()

    def forget(self) -> None:
        """Stop waiting."""
        if not self.finished.cancel() and not self.finished.cancelled():
            self.finished.exception()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            while (whole := self._reader.feed(data)) is not None and not self.finished.done():
                head, data = whole
                status = parse_status(head)
                if status == 101:
                    self._switch(head, data)
                    return
                if status >= 200:
                    self._fail(*_refusal(status, self._where))
                # Any other 1xx only announces the answer that comes next.
                self._reader = HeadReader()
        except PeerError:
            self._fail("not-a-websocket", f"{self._where} does not speak HTTP: check the URL's port")

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(
            "closed-in-handshake",
            f"{self._where} cut the connection during the upgrade: check that the URL is one of the exit's",
        )

    def _switch(self, head: bytes, rest: bytes) -> None:
        self._websocket.receive_data(head)
        self._websocket.events_received()
        if self._websocket.handshake_exc is not None:
            agreed = header(head, "sec-websocket-extensions") is not None
            self._fail(
                "not-a-websocket",
                f"{self._where} gave a wrong WebSocket answer: something between here and the exit breaks it",
                kind=_CompressionAgreed if agreed else RoadError,
            )
            return
        assert self._transport is not None
        peer = self._transport.get_extra_info("peername")
        leg = Leg(self._websocket, self._transport, peer=peer[0] if peer else "", clock=self._clock)
        self.finished.set_result(leg)
        leg.open(self._listener, rest)

    def _fail(self, reason: str, message: str, *, kind: type[RoadError] = RoadError) -> None:
        if not self.finished.done():
            self.finished.set_exception(kind(message, reason=reason))


def _refusal(status: int, where: str) -> tuple[str, str]:
    """Return reason and message for an answer that is not an upgrade."""
    if status in (401, 403):
        advice = "something in front of the exit forbids it; check the headers in the profile"
    elif status >= 500:
        advice = "the exit behind it is down or overloaded; try again later"
    elif 300 <= status < 400:
        advice = "it redirects elsewhere; put the new address into the profile"
    else:
        advice = "check the path of the URL"
    return f"http-status-{status}", f"{where} answered {status} in place of a WebSocket: {advice}"


def _parse_url(url: str) -> WebSocketURI:
    try:
        return parse_uri(url)
    except (InvalidURI, ValueError) as error:
        raise ConfigError(f"{url!r} is not a WebSocket URL; it must look like wss://HOST/PATH") from error


def _where(uri: WebSocketURI) -> str:
    return f"{uri.host} port {uri.port}"


@asynccontextmanager
async def _within(deadline: float, reason: str, message: str) -> AsyncIterator[None]:
    """Turn a deadline of the loop's clock into a RoadError."""
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError:
        raise RoadError(
            f"{message} in time: check the address and any firewall on the way", reason=reason
        ) from None
