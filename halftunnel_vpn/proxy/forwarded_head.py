"""Requests that a proxy forwards: destination, and headers that are passed on (RFC 9110 section 7.6)."""

from __future__ import annotations

from typing import Final, NamedTuple
from urllib.parse import urlsplit

from halftunnel_vpn.http1.messages import Headers, RequestHead
from halftunnel_vpn.protocol.host_encoding import Host
from halftunnel_vpn.proxy.destination import authority_of

HOP_BY_HOP: Final = frozenset(
    b"connection proxy-connection keep-alive proxy-authorization proxy-authenticate te upgrade".split()
)
"""Headers of one connection alone (RFC 9110 section 7.6.1); h11 keeps Transfer-Encoding right."""


class ForwardedRequest(NamedTuple):
    """A request with its destination, in the form that is sent there."""

    host: Host
    port: int
    head: RequestHead


def forwarded_request(head: RequestHead) -> ForwardedRequest | None:
    """Return the forwarded form of a request whose target is an http:// URL; None for any other target.

    No Via header is added: it would show every web site that its visitor uses this proxy.
    """
    try:
        target = head.target.decode("ascii")
        parts = urlsplit(target)
        if parts.scheme.lower() != "http" or not parts.netloc:
            return None
        authority = parts.netloc.rpartition("@")[2]
        host, port = authority_of(authority, 80)
    except ValueError:
        return None
    path = parts.path or ("*" if head.method == b"OPTIONS" and not parts.query else "/")
    if parts.query or target.partition("#")[0].endswith("?"):
        path += f"?{parts.query}"
    headers: Headers = [(b"Host", authority.encode())]
    headers += [pair for pair in end_to_end(head.headers) if pair[0] != b"host"]
    return ForwardedRequest(host, port, RequestHead(head.method, path.encode(), headers))


def end_to_end(headers: Headers) -> Headers:
    """Return the headers that are for the other end and not for this connection."""
    named = set(HOP_BY_HOP)
    for name, value in headers:
        if name == b"connection":
            named.update(token.strip().lower() for token in value.split(b","))
    named -= {b"transfer-encoding", b"content-length"}
    return [pair for pair in headers if pair[0] not in named]
