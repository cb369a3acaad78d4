"""TLS contexts: what a dialler trusts and what a listener shows.

TLS 1.2 at the least; ALPN offers http/1.1 alone, as browsers do for WebSockets.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import socket
import ssl
from pathlib import Path
from typing import cast

from halftunnel_vpn.errors import ConfigError
from halftunnel_vpn.transport.sockets import CLOSE_TIMEOUT, hold_back, keep_queues_short, let_go

ALPN = ["http/1.1"]
"""Protocols offered and accepted."""

CONTEXTS_KEPT = 32
"""Client contexts remembered: loading the system's authorities takes some 20 ms each time."""


@functools.lru_cache(maxsize=CONTEXTS_KEPT)
def client_context(ca_pem: str | None, *, leaf_is_pinned: bool = False) -> ssl.SSLContext:
    """Return a context that trusts the authorities in ``ca_pem`` and no others; without it, the system's.

    With ``leaf_is_pinned`` and no ``ca_pem`` the handshake accepts any certificate: the caller compares its
    hash before a byte is sent. Raises ConfigError for text that holds no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(ALPN)
    if ca_pem is not None:
        try:
            context.load_verify_locations(cadata=ca_pem)
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(
                "the pinned CA is not a PEM certificate; copy it again from the exit server"
            ) from error
        # A pinned certificate is trusted as it is, whether or not it could sign others.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    elif leaf_is_pinned:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    return context


def bare_server_context() -> ssl.SSLContext:
    """Return a server's context that has no certificate yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(ALPN)
    return context


def server_context(certificate: Path | str, key: Path | str) -> ssl.SSLContext:
    """Return a context that shows the certificate chain of one PEM file with the key of another.

    Raises ConfigError when they cannot be read or do not belong together.
    """
    context = bare_server_context()
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        raise ConfigError(
            f"the certificate {certificate} and the key {key} must be PEM files that belong together, "
            f"the key without a passphrase"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"cannot read the certificate {certificate} and its key {key}: {error.strerror}"
        ) from error
    return context


class EarlyBytes(ConnectionAbortedError):
    """The peer sent bytes in the clear before TLS began."""


class _BeforeTls(asyncio.Protocol):
    """Own a connection until TLS does. Bytes that arrive here are in the clear: they end the connection."""

    has_spoken = False
    _transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.has_spoken = True
        if self._transport is not None:
            self._transport.abort()


async def encrypt(
    sock: socket.socket,
    protocol: asyncio.BaseProtocol,
    context: ssl.SSLContext,
    *,
    server_name: str | None = None,
    deadline: float,
) -> asyncio.Transport:
    """Put TLS on a connected socket, as its client if ``server_name`` is given, otherwise as its server.

    Return the transport to use from now on; it owns ``sock``. ``protocol`` gets only bytes that came through
    TLS, perhaps before this returns; its ``connection_made`` is not called. ``deadline`` is in seconds from
    now. Raises OSError, of which ssl.SSLError and EarlyBytes are kinds, and has closed the connection then.

    Not left to ``create_connection`` and its like, because the socket's transport under TLS would keep 64 KiB
    of its own waiting, out of reach.
    """
    loop = asyncio.get_running_loop()
    clear = _BeforeTls()
    hold_back(sock)
    transport, _ = await loop.connect_accepted_socket(lambda: clear, sock)
    try:
        # No await from this check until TLS owns the transport: nothing can be read in between.
        if clear.has_spoken:
            raise EarlyBytes("bytes in the clear before TLS")
        if transport.is_closing():  # uvloop would fail in a callback, and log a traceback
            raise ConnectionResetError(errno.ECONNRESET, "the connection was cut before TLS began")
        keep_queues_short(transport)
        let_go(sock)
        encrypted = await loop.start_tls(
            transport,
            protocol,
            context,
            server_side=server_name is None,
            server_hostname=server_name,
            ssl_handshake_timeout=deadline,
            ssl_shutdown_timeout=CLOSE_TIMEOUT,
        )
    except BaseException:
        transport.abort()
        raise
    if encrypted is None:
        raise ConnectionResetError("the connection ended during the TLS handshake")
    return encrypted


def _no_password() -> str:
    # Without this OpenSSL would ask on the terminal.
    return ""
