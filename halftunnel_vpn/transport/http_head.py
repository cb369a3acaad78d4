"""Heads of HTTP/1 messages (RFC 9112): the few lines that a leg exchanges before it is a WebSocket.

``websockets`` reads only a GET; strangers and proxies send everything else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from halftunnel_vpn.errors import PeerError

MAX_HEAD = 16 * 1024
"""Bytes of the longest head that is read."""

_END = re.compile(rb"\r?\n\r?\n")
_REQUEST_LINE = re.compile(r"([A-Z]{1,32}) ([!-~]+) (HTTP/1\.[01])")
_STATUS_LINE = re.compile(r"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?")
# Blanks around the value are stripped afterwards: three repetitions in a row that all match blanks would try
# every way of sharing a long run of them.
_HEADER_LINE = re.compile(r"([-!#$%&'*+.^_`|~0-9A-Za-z]+):([^\x00\r\n]*)")
_LENGTH = re.compile(r"[0-9]{1,18}")
_METHOD_START = re.compile(rb"[A-Z]{1,32}(?: |$)")


class HeadReader:
    """Collects bytes until a whole head is there."""

    __slots__ = ("_bytes",)

    def __init__(self) -> None:
        self._bytes = b""

    @property
    def received(self) -> bytes:
        """Everything that has come in."""
        return self._bytes

    @property
    def begun(self) -> bool:
        """Whether anything has arrived."""
        return bool(self._bytes)

    def feed(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Return the head with its empty line and what follows it; None as long as it is not whole.

        Raises PeerError(http-head-too-long).
        """
        searched = max(0, len(self._bytes) - 3)
        self._bytes += data
        end = _END.search(self._bytes, searched)
        if end is None:
            if len(self._bytes) > MAX_HEAD:
                raise PeerError("http-head-too-long")
            return None
        if end.end() > MAX_HEAD:
            raise PeerError("http-head-too-long")
        return self._bytes[: end.end()], self._bytes[end.end() :]

    def check_request_start(self) -> None:
        """Raise PeerError(http-malformed) as soon as this cannot become an HTTP request."""
        line, newline, _ = self._bytes.partition(b"\n")
        if newline:
            _parse_request_line(line.decode("latin-1").removesuffix("\r"))
        elif not _METHOD_START.match(line):
            raise PeerError("http-malformed", "not a method")


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request's head. ``target`` is as sent; header names are in lower case."""

    method: str
    target: str
    version: str
    headers: list[tuple[str, str]]
    raw: bytes

    def values(self, name: str) -> list[str]:
        """Return all values of a header, in order; ``name`` in lower case."""
        return [value for key, value in self.headers if key == name]

    @property
    def body_length(self) -> int | None:
        """Bytes that follow the head (RFC 9112 section 6.3); None when only the body itself shows it."""
        if self.values("transfer-encoding"):
            return None
        lengths = self.values("content-length")
        return int(lengths[0]) if lengths and _LENGTH.fullmatch(lengths[0]) else 0

    @property
    def wants_websocket(self) -> bool:
        """Whether this asks for an upgrade to a WebSocket, well-formed or not."""
        return self.method == "GET" and any(v.lower() == "websocket" for v in self.values("upgrade"))


def _parse_request_line(line: str) -> tuple[str, str, str]:
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise PeerError("http-malformed", "request line")
    method, target, version = match.groups()
    return method, target, version


def parse_request(head: bytes) -> HttpRequest:
    """Raises PeerError(http-malformed): a bad line, or HTTP/1.1 without exactly one Host."""
    first, *lines = head.decode("latin-1").replace("\r\n", "\n").rstrip("\n").split("\n")
    method, target, version = _parse_request_line(first)
    headers = []
    for line in lines:
        match = _HEADER_LINE.fullmatch(line)
        if match is None:
            raise PeerError("http-malformed", "header line")
        headers.append((match[1].lower(), match[2].strip(" \t")))
    request = HttpRequest(method, target, version, headers, head)
    hosts = len(request.values("host"))
    if hosts > 1 or (hosts == 0 and version == "HTTP/1.1"):
        raise PeerError("http-malformed", "host")
    return request


def header(head: bytes, name: str) -> str | None:
    """The first value of a header of a response, ``name`` in lower case; malformed lines are ignored."""
    for line in head.decode("latin-1").replace("\r\n", "\n").split("\n")[1:]:
        match = _HEADER_LINE.fullmatch(line)
        if match is not None and match[1].lower() == name:
            return match[2].strip(" \t")
    return None


def parse_status(head: bytes) -> int:
    """Return the status code of a response. Raises PeerError(http-malformed)."""
    line = head.partition(b"\n")[0].decode("latin-1").removesuffix("\r")
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise PeerError("http-malformed", "status line")
    return int(match[1])
