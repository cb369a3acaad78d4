"""HTTP CONNECT (RFC 9110 section 9.3.6): the way out of networks that let nothing else through."""

from __future__ import annotations

import asyncio
import base64
import re
import socket
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from halftunnel_vpn.errors import ConfigError, PeerError, RoadError
from halftunnel_vpn.transport.browser_request import USER_AGENT
from halftunnel_vpn.transport.http_head import HeadReader, parse_status

_READ_SIZE = 4096

MAX_INTERIM = 16
"""Answers of status 1xx before the final one."""

MAX_SCHEMES = 4
"""Authentication schemes of a proxy that are named."""

_CHALLENGE = re.compile(
    rb"^proxy-authenticate:[ \t]*([a-z][a-z0-9-]{0,31})([^\r\n]*)", re.IGNORECASE | re.MULTILINE
)
_MORE_BASIC = re.compile(rb",[ \t]*basic(?![a-z0-9-]*[ \t]*=)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy: its address, and our credentials."""

    host: str
    port: int
    credentials: str | None
    """``user:password``, as it is."""

    @property
    def name(self) -> str:
        """For messages; without the password."""
        return f"{bracketed(self.host)}:{self.port}"


def bracketed(host: str) -> str:
    """Return a host as it stands in an authority: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host


def parse_proxy(url: str) -> Proxy:
    """``http://[USER:PASSWORD@]HOST[:PORT]``, port 80 if not given. Raises ConfigError."""
    try:
        parts = urlsplit(url)
        port = parts.port or 80
    except ValueError as error:
        raise ConfigError(f"the proxy URL is not valid: {error}") from error
    if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/") or parts.query:
        raise ConfigError("the proxy must look like http://HOST:PORT or http://USER:PASSWORD@HOST:PORT")
    credentials = None
    if parts.username is not None:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return Proxy(parts.hostname, port, credentials)


async def connect_through(sock: socket.socket, proxy: Proxy, host: str, port: int) -> None:
    """Ask the proxy at the other end of ``sock`` for a tunnel; afterwards the socket is as one to the host.

    Raises RoadError(proxy-authentication-required, proxy-refused).
    """
    authority = f"{bracketed(host)}:{port}"
    # like a browser: some proxies refuse clients without a User-Agent
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}", "Proxy-Connection: keep-alive"]
    lines.append(f"User-Agent: {USER_AGENT}")
    if proxy.credentials is not None:
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(proxy.credentials.encode()).decode()}")
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_sendall(sock, "\r\n".join([*lines, "", ""]).encode())
        status, head = await _read_answer(sock)
    except (PeerError, OSError) as error:
        raise RoadError(
            f"the proxy {proxy.name} gave no HTTP answer: check that it is an HTTP proxy and its port",
            reason="proxy-refused",
        ) from error
    if status == 407:
        raise _refused_credentials(proxy, head)
    if not 200 <= status < 300:
        raise RoadError(
            f"the proxy {proxy.name} refused a tunnel to {authority} with status {status}: "
            f"ask its operator to allow it",
            reason="proxy-refused",
        )


def _refused_credentials(proxy: Proxy, head: bytes) -> RoadError:
    """Return what to do about a 407: the proxy names the schemes that it takes (RFC 9110, section 11.7.1)."""
    challenges = _CHALLENGE.findall(head)
    schemes = list(dict.fromkeys(scheme.decode() for scheme, _ in challenges))
    takes_basic = any(scheme.lower() == b"basic" or _MORE_BASIC.search(more) for scheme, more in challenges)
    if schemes and not takes_basic:
        return RoadError(
            f"the proxy {proxy.name} takes only {', '.join(schemes[:MAX_SCHEMES])} authentication, which is "
            "not supported: ask its operator for Basic, or for an exception for this machine",
            reason="proxy-authentication-unsupported",
        )
    if proxy.credentials is None:
        sentence = f"the proxy {proxy.name} wants a user name and a password: put them into its URL"
    else:
        sentence = f"the proxy {proxy.name} refuses the user name or the password in its URL: correct them"
    return RoadError(sentence, reason="proxy-authentication-required")


async def _read_answer(sock: socket.socket) -> tuple[int, bytes]:
    """Return the status and the head of the final answer, after any number of 1xx ones within its bound."""
    loop = asyncio.get_running_loop()
    reader = HeadReader()
    interim = 0
    while True:
        data = await loop.sock_recv(sock, _READ_SIZE)
        if not data:
            raise PeerError("http-malformed", "the connection ended")
        while data and (whole := reader.feed(data)) is not None:
            head, data = whole
            status = parse_status(head)
            if status >= 300:
                return status, head
            if status >= 200:
                if data:
                    # The server sends nothing before us on the tunnel, so these bytes are not from it.
                    raise PeerError("http-malformed", "bytes after the answer")
                return status, head
            interim += 1
            if interim > MAX_INTERIM:
                raise PeerError("http-malformed", "too many interim answers")
            reader = HeadReader()  # a 1xx only announces the answer that comes next
