"""A small HTTP/1.1 service: a table of routes, with bounds on size, time and connections.

It serves metrics and a few commands, never the public. On TCP it must use a loopback or private address.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from halftunnel_vpn.control import unix_socket
from halftunnel_vpn.control.peer import Peer, peer_of
from halftunnel_vpn.errors import HostError
from halftunnel_vpn.http1.exchange import MalformedMessage, RequestHead, ResponseHead, ServerSide, Signal

log = logging.getLogger(__name__)

MAX_HEAD = 16 * 1024
"""The most bytes of a request line with its headers."""

MAX_BODY = 64 * 1024
"""The most bytes of a request's body."""

MAX_CONNECTIONS = 32
"""Simultaneous connections. Further ones are closed unread."""

REQUEST_TIMEOUT = 10.0
"""Seconds within which a request must arrive, and also within which its answer must be sent."""

HANDLER_TIMEOUT = 60.0
"""Seconds that a handler may take for its answer (a long poll takes MAX_WAIT of ``control/ring.py``)."""

READ_SIZE = 16 * 1024
"""Bytes of one read from the socket."""

KEEPS_FILE: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
"""Python 3.13 and later remove a Unix socket's file with its server, even if systemd owns the file."""

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"


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


class Response(NamedTuple):
    """One complete answer."""

    status: int
    content_type: str
    body: bytes


def failure(status: int, sentence: str) -> Response:
    """Return the answer to a failed request: ``{"error": SENTENCE}``."""
    return Response(status, JSON, json.dumps({"error": sentence}).encode() + b"\n")


Handler = Callable[[Request], Awaitable[Response]]
Routes = Mapping[tuple[str, str], Handler]
"""Maps (method, path) to a handler. One segment of a path may be ``*``, which matches any."""


class ControlService:
    """Serves ``routes`` on any number of sockets until :meth:`close`."""

    def __init__(
        self,
        routes: Routes,
        *,
        max_connections: int = MAX_CONNECTIONS,
        max_body: int = MAX_BODY,
        timeout: float = REQUEST_TIMEOUT,
    ) -> None:
        self._routes = routes
        self._max_connections = max_connections
        self._max_body = max_body
        self._timeout = timeout
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._unix_paths: list[str] = []

    async def serve_tcp(self, host: str, port: int) -> int:
        """Listen on ``host``; return the port (the chosen one for 0). Raises HostError."""
        try:
            server = await asyncio.start_server(self._accept, host, port, limit=READ_SIZE)
        except OSError as error:
            raise HostError(
                f"cannot listen on {host} port {port}: {error.strerror or error}; choose another address"
            ) from error
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def serve_unix(self, path: str, *, group: int | None = None) -> None:
        """Listen on the Unix socket ``path``, for its owner only or also for ``group``. Raises HostError."""
        listener = unix_socket.claim(path, group=group)
        self._unix_paths.append(path)
        await self.serve_socket(listener)

    async def serve_socket(self, listener: socket.socket) -> None:
        """Serve a Unix socket that another process made (socket activation) and will remove."""
        listener.setblocking(False)
        server = await asyncio.start_unix_server(self._accept, sock=listener, limit=READ_SIZE, **KEEPS_FILE)
        self._servers.append(server)

    async def close(self) -> None:
        """Remove the Unix sockets, stop listening, close every connection."""
        for path in self._unix_paths:
            # Do this first. Once nothing listens, the socket at this path may be that of the next process.
            unix_socket.release(path)
        self._unix_paths.clear()
        for server in self._servers:
            server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= self._max_connections:
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._converse(reader, writer, _peer(writer))
        except (OSError, TimeoutError):
            pass  # The other side has closed or is too slow. Nobody could receive a report.
        except asyncio.CancelledError:
            pass  # close() ends this connection; the task has no caller to report to.
        finally:
            self._connections.discard(task)
            writer.close()

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer | None = None
    ) -> None:
        """Handle requests one after the other until either side closes."""
        exchange = ServerSide(max_head=MAX_HEAD)
        while True:
            async with asyncio.timeout(self._timeout):
                try:
                    request = await _receive(exchange, reader, self._max_body)
                except _BadRequest as bad:
                    if exchange.may_respond:
                        response = failure(bad.status, bad.sentence)
                        await _send(exchange, writer, response, head_only=bad.head_only, close=True)
                    return
                if request is None:
                    return
            async with asyncio.timeout(HANDLER_TIMEOUT):
                response = await self._answer(request._replace(peer=peer))
            async with asyncio.timeout(self._timeout):
                await _send(exchange, writer, response, head_only=request.method == "HEAD")
            if not exchange.is_over:
                return
            exchange.start_next()

    async def _answer(self, request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        found = match(self._routes, method, request.path)
        if found is None:
            return failure(404, "no such path")
        handler, captured = found
        if handler is None:
            return failure(405, "this method is not supported for this path")
        try:
            return await handler(request._replace(captured=captured))
        except Exception:
            log.exception("the handler of %s %s failed", request.method, request.path)
            return failure(500, "an unexpected error occurred; see the log")


def match(routes: Routes, method: str, path: str) -> tuple[Handler | None, str] | None:
    """Return the handler and the match of ``*``; (None, "") for a wrong method, None for a wrong path."""
    handler = routes.get((method, path))
    if handler is not None:
        return handler, ""
    found: tuple[Handler | None, str] | None = None
    asked = path.split("/")
    for (served, pattern), candidate in routes.items():
        wanted = pattern.split("/")
        if len(wanted) != len(asked) or any(w not in (a, "*") for w, a in zip(wanted, asked, strict=True)):
            continue
        if served == method:
            return candidate, next((a for w, a in zip(wanted, asked, strict=True) if w == "*"), "")
        found = None, ""
    return found


def _peer(writer: asyncio.StreamWriter) -> Peer | None:
    """Return the peer's credentials. The transport's own socket object is a wrapper without getsockopt."""
    stand_in = writer.get_extra_info("socket")
    if stand_in is None or stand_in.family != socket.AF_UNIX:
        return None
    with socket.socket(fileno=os.dup(stand_in.fileno())) as connection:
        return peer_of(connection)


class _BadRequest(Exception):
    """A request that cannot be served, with the status and the sentence of its answer."""

    def __init__(self, status: int, sentence: str, head: RequestHead | None) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.head_only = head is not None and head.method == b"HEAD"
        """Whether the method was HEAD: then even errors have no body (RFC 9110, section 9.3.2)."""


async def _receive(exchange: ServerSide, reader: asyncio.StreamReader, max_body: int) -> Request | None:
    """Return one complete request, or None if the other side has closed. Raises _BadRequest."""
    head: RequestHead | None = None
    body = bytearray()
    while True:
        try:
            part = exchange.next()
            if part is Signal.NEED_DATA:
                exchange.feed(await reader.read(READ_SIZE))
        except MalformedMessage as error:
            raise _BadRequest(error.status, "malformed request", head) from error
        if part is Signal.NEED_DATA:
            continue
        if isinstance(part, RequestHead):
            head = part
        elif isinstance(part, bytes):
            body += part
            if len(body) > max_body:
                raise _BadRequest(413, f"the body is longer than {max_body} bytes", head)
        elif part is Signal.END and head is not None:
            try:
                target = urlsplit(head.target.decode("ascii", "replace"))
            except ValueError:  # "//[": an invalid authority
                raise _BadRequest(400, "malformed request target", head) from None
            return Request(head.method.decode("ascii"), target.path, target.query, bytes(body))
        else:
            return None


async def _send(
    exchange: ServerSide,
    writer: asyncio.StreamWriter,
    response: Response,
    *,
    head_only: bool = False,
    close: bool = False,
) -> None:
    headers = [
        (b"Content-Type", response.content_type.encode()),
        (b"Content-Length", b"%d" % len(response.body)),
    ]
    if close:
        headers.append((b"Connection", b"close"))
    answer = exchange.response(ResponseHead(response.status, b"", headers))
    if not head_only:
        answer += exchange.data(response.body)
    writer.write(answer + exchange.end())
    await writer.drain()
