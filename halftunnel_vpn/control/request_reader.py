"""Reading one request of HTTP/1.1 from a stream, within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from halftunnel_vpn.control.peer import Peer
from halftunnel_vpn.http1.messages import Headers, MalformedMessage, RequestHead, Signal

if TYPE_CHECKING:
    from halftunnel_vpn.http1.exchange import ServerSide

READ_SIZE = 16 * 1024
"""Bytes of one read from the socket."""


class Request(NamedTuple):
    """One complete request."""

    method: str
    path: str
    query: str
    body: bytes
    peer: Peer | None = None
    """The process that sent it; None over TCP."""
    captured: str = ""
    """The part of the path that matches the ``*`` of the route."""
    headers: Mapping[bytes, bytes] = {}
    """By name in lower case; a name that comes again has all values, with commas (RFC 9110, section 5.3)."""


class BadRequest(Exception):
    """A request that cannot be served, with the status and the sentence of its answer."""

    def __init__(
        self, status: int, sentence: str, head: RequestHead | None, *, reason: str = "malformed-request"
    ) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.status = status
        self.sentence = sentence
        self.head_only = head is not None and head.method == b"HEAD"
        """Whether the method was HEAD: then even errors have no body (RFC 9110, section 9.3.2)."""


async def receive(exchange: ServerSide, reader: asyncio.StreamReader, max_body: int) -> Request | None:
    """Return one complete request, or None if the other side has closed. Raises BadRequest."""
    head: RequestHead | None = None
    body = bytearray()
    while True:
        try:
            part = exchange.next()
            if part is Signal.NEED_DATA:
                exchange.feed(await reader.read(READ_SIZE))
        except MalformedMessage as error:
            raise BadRequest(error.status, "malformed request", head) from error
        if part is Signal.NEED_DATA:
            continue
        if isinstance(part, RequestHead):
            head = part
        elif isinstance(part, bytes):
            body += part
            if len(body) > max_body:
                sentence = f"the body is longer than {max_body} bytes"
                raise BadRequest(413, sentence, head, reason="body-too-long")
        elif part is Signal.END and head is not None:
            try:
                target = urlsplit(head.target.decode("ascii", "replace"))
            except ValueError:  # "//[": an invalid authority
                raise BadRequest(400, "malformed request target", head) from None
            method = head.method.decode("ascii")
            return Request(method, target.path, target.query, bytes(body), headers=_joined(head.headers))
        else:
            return None


def _joined(headers: Headers) -> dict[bytes, bytes]:
    """Return headers by name."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        found[name] = found[name] + b", " + value if name in found else value
    return found
