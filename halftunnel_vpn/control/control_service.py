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
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from halftunnel_vpn.control import unix_socket
from halftunnel_vpn.control.peer import Peer, peer_of
from halftunnel_vpn.control.request_reader import READ_SIZE, BadRequest, Request, receive
from halftunnel_vpn.errors import HostError
from halftunnel_vpn.http1.messages import ResponseHead

if TYPE_CHECKING:
    from halftunnel_vpn.http1.exchange import ServerSide

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

KEEPS_FILE: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
"""Python 3.13 and later remove a Unix socket's file with its server, even if systemd owns the file."""

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"


class BodySource(Protocol):
    """A body whose parts come over time."""

    async def next_part(self) -> bytes:
        """Return the next part; ``b""`` when there is none any more."""
        ...

    def close(self) -> None:
        """Release it: its reader is gone, or it has ended. Called once."""
        ...


class Response(NamedTuple):
    """One answer. ``source`` yields a body that follows ``body``; the connection ends with it."""

    status: int
    content_type: str
    body: bytes
    headers: Sequence[tuple[bytes, bytes]] = ()
    source: BodySource | None = None


class ServicePolicy(NamedTuple):
    """What a service does with every request, whatever its path."""

    check: Callable[[Request], Response | None] = lambda request: None
    """Called before the routes; returns the answer to a request that is refused."""
    headers: Sequence[tuple[bytes, bytes]] = ()
    """Headers of every answer."""
    refused: Callable[[str], None] = lambda reason: None
    """Called with the reason when a connection or a request is refused before any route sees it."""


NO_POLICY = ServicePolicy()


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
        handler_timeout: float = HANDLER_TIMEOUT,
        policy: ServicePolicy = NO_POLICY,
    ) -> None:
        self._routes = routes
        self._policy = policy
        self._max_connections = max_connections
        self._max_body = max_body
        self._timeout = timeout
        self._handler_timeout = handler_timeout
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
            self._policy.refused("connection-limit")
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
        from halftunnel_vpn.http1.exchange import ServerSide  # not needed before somebody asks

        exchange = ServerSide(max_head=MAX_HEAD)
        while True:
            async with asyncio.timeout(self._timeout):
                try:
                    request = await receive(exchange, reader, self._max_body)
                except BadRequest as bad:
                    self._policy.refused(bad.reason)
                    if exchange.may_respond:
                        response = failure(bad.status, bad.sentence)
                        await self._send(exchange, writer, response, head_only=bad.head_only, close=True)
                    return
                if request is None:
                    return
            try:
                async with asyncio.timeout(self._handler_timeout):
                    response = await self._answer(request._replace(peer=peer))
            except TimeoutError:
                response = failure(503, f"no answer within {self._handler_timeout:.0f} s; try it again")
            if response.source is not None:
                try:
                    if request.method != "HEAD":
                        await self._send_parts(exchange, reader, writer, response, response.source)
                        return
                finally:
                    response.source.close()
            async with asyncio.timeout(self._timeout):
                await self._send(exchange, writer, response, head_only=request.method == "HEAD")
            if not exchange.is_over:
                return
            exchange.start_next()

    async def _send(
        self,
        exchange: ServerSide,
        writer: asyncio.StreamWriter,
        response: Response,
        *,
        head_only: bool = False,
        close: bool = False,
    ) -> None:
        headers = [
            *_headers(response),
            (b"Content-Length", b"%d" % len(response.body)),
            *self._policy.headers,
        ]
        if close:
            headers.append((b"Connection", b"close"))
        answer = exchange.response(ResponseHead(response.status, b"", headers))
        if not head_only:
            answer += exchange.data(response.body)
        writer.write(answer + exchange.end())
        await writer.drain()

    async def _send_parts(
        self,
        exchange: ServerSide,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        response: Response,
        source: BodySource,
    ) -> None:
        """Send ``source`` part by part until it ends or the other side closes or sends anything."""
        headers = [*_headers(response), (b"Connection", b"close"), *self._policy.headers]
        writer.write(exchange.response(ResponseHead(response.status, b"", headers)))
        part = response.body
        left = asyncio.ensure_future(reader.read(1))
        try:
            while True:
                if part:
                    writer.write(exchange.data(part))
                async with asyncio.timeout(self._timeout):
                    await writer.drain()
                following = asyncio.ensure_future(source.next_part())
                try:
                    await asyncio.wait((left, following), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    following.cancel()
                if left.done():
                    return
                part = following.result()
                if not part:
                    break
        finally:
            left.cancel()
            await asyncio.gather(left, return_exceptions=True)
        writer.write(exchange.end())
        async with asyncio.timeout(self._timeout):
            await writer.drain()

    async def _answer(self, request: Request) -> Response:
        refusal = self._policy.check(request)
        if refusal is not None:
            return refusal
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


def _headers(response: Response) -> list[tuple[bytes, bytes]]:
    return [(b"Content-Type", response.content_type.encode()), *response.headers]
