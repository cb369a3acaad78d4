"""A small HTTP/1.1 service: a table of routes, bounded in size, time and connections.

It serves numbers and a few commands, never the public: on TCP it belongs on a loopback or a private address.
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
"""Bytes of a request line with its headers."""

MAX_BODY = 64 * 1024
"""Bytes of a request's body."""

MAX_CONNECTIONS = 32
"""Connections at once; further ones are closed unread."""

REQUEST_TIMEOUT = 10.0
"""Seconds for one request to arrive, from its first byte awaited, and as many for its answer to leave."""

HANDLER_TIMEOUT = 60.0
"""Seconds that a handler may take for its answer (a long poll takes MAX_WAIT of ``control/ring.py``)."""

READ_SIZE = 16 * 1024
"""Bytes asked of the socket at a time."""

KEEPS_FILE: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
"""Python 3.13 and later remove a Unix socket's file with its server, also one that systemd keeps."""

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"


class Request(NamedTuple):
    """One request, whole."""

    method: str
    path: str
    query: str
    body: bytes
    peer: Peer | None = None
    """Who asks; None over TCP."""
    captured: str = ""
    """What stands for the ``*`` of the route."""


class Response(NamedTuple):
    """One answer, whole."""

    status: int
    content_type: str
    body: bytes


def failure(status: int, sentence: str) -> Response:
    """The answer to what cannot be done: ``{"error": SENTENCE}``."""
    return Response(status, JSON, json.dumps({"error": sentence}).encode() + b"\n")


Handler = Callable[[Request], Awaitable[Response]]
Routes = Mapping[tuple[str, str], Handler]
"""(method, path) to handler; one segment of a path may be ``*``, which stands for any."""


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
        """Listen on ``host``; returns the port (which one, if 0 was asked for). Raises HostError."""
        try:
            server = await asyncio.start_server(self._accept, host, port, limit=READ_SIZE)
        except OSError as error:
            raise HostError(
                f"cannot listen on {host} port {port}: {error.strerror or error}; choose another address"
            ) from error
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def serve_unix(self, path: str, *, group: int | None = None) -> None:
        """Listen on the Unix socket ``path``, for its owner alone or also for ``group``. Raises HostError."""
        listener = unix_socket.claim(path, group=group)
        self._unix_paths.append(path)
        await self.serve_socket(listener)

    async def serve_socket(self, listener: socket.socket) -> None:
        """Serve a Unix socket that was made by somebody else (socket activation), who will also remove it."""
        listener.setblocking(False)
        server = await asyncio.start_unix_server(self._accept, sock=listener, limit=READ_SIZE, **KEEPS_FILE)
        self._servers.append(server)

    async def close(self) -> None:
        """Remove the Unix sockets, stop listening, end every connection."""
        for path in self._unix_paths:
            # First: what is at this path once nobody listens any more may be the next process's.
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
            pass  # The other side is gone or too slow: there is nobody to tell.
        except asyncio.CancelledError:
            pass  # close() ends this connection; the task has no one else to report to.
        finally:
            self._connections.discard(task)
            writer.close()

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer | None = None
    ) -> None:
        """Requests and answers, one after the other, until either side has had enough."""
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
            return failure(404, "there is nothing at this path")
        handler, captured = found
        if handler is None:
            return failure(405, "this path is not served for that method")
        try:
            return await handler(request._replace(captured=captured))
        except Exception:
            log.exception("the handler of %s %s failed", request.method, request.path)
            return failure(500, "an unexpected error occurred; the log says what")


def match(routes: Routes, method: str, path: str) -> tuple[Handler | None, str] | None:
    """The handler and what ``*`` stands for; no handler if the method is wrong, None if the path is."""
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
    """Who is at the other end. The transport's own socket object is a stand-in that cannot be asked."""
    stand_in = writer.get_extra_info("socket")
    if stand_in is None or stand_in.family != socket.AF_UNIX:
        return None
    with socket.socket(fileno=os.dup(stand_in.fileno())) as connection:
        return peer_of(connection)


class _BadRequest(Exception):
    """A request that cannot be served: the status and the sentence of its answer."""

    def __init__(self, status: int, sentence: str, head: RequestHead | None) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.head_only = head is not None and head.method == b"HEAD"
        """An answer to HEAD has no body, an error included (RFC 9110, section 9.3.2)."""


async def _receive(exchange: ServerSide, reader: asyncio.StreamReader, max_body: int) -> Request | None:
    """Return one whole request, or None if the other side has hung up. Raises _BadRequest."""
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
            except ValueError:  # "//[": an authority that is none
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
