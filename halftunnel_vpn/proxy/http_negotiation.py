"""An HTTP proxy's first request: CONNECT (RFC 9110 section 9.3.6), or one to forward. No input and output."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.http1.exchange import ServerSide
from halftunnel_vpn.http1.messages import Headers, MalformedMessage, RequestHead, ResponseHead, Signal
from halftunnel_vpn.proxy.destination import authority_of
from halftunnel_vpn.proxy.forwarded_head import forwarded_request
from halftunnel_vpn.proxy.negotiation import Command, ProxyRequest, Users, is_user
from halftunnel_vpn.proxy.refusals import Refusal

MAX_HEAD: Final = 64 * 1024
"""Bytes of the head of a request or of a response."""

REASONS: Final = {
    400: b"Bad Request",
    403: b"Forbidden",
    407: b"Proxy Authentication Required",
    413: b"Content Too Large",
    417: b"Expectation Failed",
    431: b"Request Header Fields Too Large",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
}

NOT_FOR_A_PROXY: Final = (
    "this is an HTTP proxy, not a web server: name it in the proxy settings of a program (http_proxy, "
    "--proxy); https:// needs the method CONNECT"
)


class HttpNegotiation:
    """Implements Negotiation. With Command.FORWARD, :attr:`exchange` and :attr:`head` go on elsewhere."""

    def __init__(self, users: Users, counters: Counters) -> None:
        self.request: ProxyRequest | None = None
        self.is_over = False
        self.exchange = ServerSide(max_head=MAX_HEAD)
        self.head: RequestHead | None = None
        self._users = users
        self._counters = counters
        self._outgoing = b""

    def receive(self, data: bytes) -> None:
        """Take the next bytes of the program."""
        try:
            self.exchange.feed(data)
            part = self.exchange.next()
        except MalformedMessage as error:
            self._counters.drop(Refusal.MALFORMED.label)
            self._refuse(error.status, Refusal.MALFORMED.sentence)
            return
        if isinstance(part, RequestHead):
            self._take(part)
        elif part is not Signal.NEED_DATA:
            self.is_over = True

    def _take(self, head: RequestHead) -> None:
        problem = check_head(head, self._users)
        if problem is not None:
            self._counters.drop(problem.reason)
            self._refuse(problem.status, problem.sentence)
        elif head.method == b"CONNECT":
            try:
                host, port = authority_of(head.target.decode("latin-1"))
            except ValueError:
                self._counters.drop(Refusal.BAD_NAME.label)
                self._outgoing = self.refused(Refusal.BAD_NAME)
                self.is_over = True
                return
            self.exchange.next()  # the end of the request
            self.request = ProxyRequest(Command.CONNECT, host, port)
        else:
            self.head = head
            self.request = ProxyRequest(Command.FORWARD)

    def outgoing(self) -> bytes:
        """Return the bytes to write now, once."""
        written, self._outgoing = self._outgoing, b""
        return written

    def rest(self) -> bytes:
        """Return the bytes that came after the request."""
        return self.exchange.unread

    def granted(self, address: bytes = b"", port: int = 0) -> bytes:
        """Return the answer that the connection is established."""
        return self.exchange.response(ResponseHead(200, b"Connection established", []))

    def refused(self, refusal: Refusal) -> bytes:
        """Return the answer that it failed."""
        return answer(self.exchange, refusal.http, refusal.sentence)

    def _refuse(self, status: int, sentence: str) -> None:
        self._outgoing = answer(self.exchange, status, sentence)
        self.is_over = True


class Problem:
    """Why a head is refused: the status, the reason that is counted, and the sentence."""

    __slots__ = ("reason", "sentence", "status")

    def __init__(self, status: int, reason: str, sentence: str) -> None:
        self.status = status
        self.reason = reason
        self.sentence = sentence


def check_head(head: RequestHead, users: Users) -> Problem | None:
    """Return why this proxy refuses a request; None if it accepts it."""
    if users and not _is_authorised(head.headers, users):
        return Problem(407, "proxy-wrong-password", "this proxy needs a user and a password")
    if head.method != b"CONNECT" and forwarded_request(head) is None:
        return Problem(400, "proxy-malformed", NOT_FOR_A_PROXY)
    return None


def answer(exchange: ServerSide, status: int, sentence: str, *, head_only: bool = False) -> bytes:
    """Return a whole response of our own, after which the connection ends; empty when it comes too late."""
    if not exchange.may_respond:
        return b""
    body = f"htvpn: {sentence}\n".encode()
    headers: Headers = [
        (b"Content-Type", b"text/plain; charset=utf-8"),
        (b"Content-Length", b"%d" % len(body)),
        (b"Connection", b"close"),
    ]
    if status == 407:
        headers.append((b"Proxy-Authenticate", b'Basic realm="htvpn"'))
    written = exchange.response(ResponseHead(status, REASONS.get(status, b""), headers))
    return written + (b"" if head_only else exchange.data(body)) + exchange.end()


def _is_authorised(headers: Headers, users: Users) -> bool:
    for name, value in headers:
        if name == b"proxy-authorization":
            scheme, _, encoded = value.partition(b" ")
            try:
                text = base64.b64decode(encoded.strip(), validate=True).decode("utf-8")
            except (binascii.Error, ValueError):
                return False
            user, _, password = text.partition(":")
            return scheme.lower() == b"basic" and is_user(users, user, password)
    return False
