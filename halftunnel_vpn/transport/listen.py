"""Accepts connections: TCP, TLS, one HTTP request, and then either a leg or an ordinary web server."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

from halftunnel_vpn.config.shared import SYSTEM_CONGESTION
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import UnexpectedEnd
from halftunnel_vpn.transport.admission import (
    Admission,
    IpAddress,
    IpNetwork,
    ListenLimits,
    PeerKey,
    Ticket,
    parse_address,
    peer_key,
)
from halftunnel_vpn.transport.certificate_store import CertificateStore
from halftunnel_vpn.transport.decoy_site import Sites
from halftunnel_vpn.transport.http_upgrade import LegFactory, Visitor
from halftunnel_vpn.transport.kernel.send_buffer import prepare
from halftunnel_vpn.transport.leg import Leg
from halftunnel_vpn.transport.listening_socket import drop, listening_socket
from halftunnel_vpn.transport.sockets import CLOSE_TIMEOUT, tune
from halftunnel_vpn.transport.tls import EarlyBytes, encrypt

ACCEPT_BATCH = 64
"""Connections accepted in a row before everything else gets its turn."""

ACCEPT_PAUSE = 0.2
"""Seconds to wait when the process has no file descriptors left."""

SOCKET_IS_GONE = (errno.EBADF, errno.ENOTSOCK, errno.EINVAL, errno.EOPNOTSUPP)
"""Errors of accepting after which it can never succeed again."""

MAX_VISITORS = 512
"""Connections that have not made their request yet; one more ends the oldest of the peer that has most."""


class ListenerOwner(NamedTuple):
    """Gives a listener its counters and clock, and is called about refusals."""

    counters: Counters
    clock: Callable[[], float] = time.monotonic
    # Called with the peer's address and the reason of every refusal, for the log.
    refused: Callable[[str, str], None] = lambda peer, reason: None


class Listener:
    """Implements VisitorOwner. Accepts legs on any number of addresses, on exactly the paths given.

    Counted: ``congestion-control-refused`` (by the kernel), ``connections-accepted``,
    ``legs-accepted``, ``site-answers``, ``fallback-answers``. Dropped, by reason:
    ``connection-limit``, ``peer-limit``, ``peer-rate``, ``stranger-rate``, ``arrival-rate``,
    ``accept-failed``, ``tls-failed``, ``bytes-before-tls``, ``request-timeout``, ``too-many-visitors``,
    ``http-malformed``, ``http-head-too-long``, ``http-without-upgrade``, ``upgrade-refused``,
    ``fallback-failed``.
    """

    def __init__(
        self,
        paths: Mapping[str, LegFactory],
        sites: Sites,
        owner: ListenerOwner | None = None,
        *,
        fallback: tuple[str, int] | None = None,
        limits: ListenLimits | None = None,
        trusted_proxies: Iterable[IpNetwork] = (),
        congestion: str = SYSTEM_CONGESTION,
    ) -> None:
        """``fallback`` is the address and port of a web server that answers in place of ``sites``."""
        self.paths = dict(paths)
        self.sites = sites
        self.fallback = fallback
        self.limits = limits or ListenLimits()
        self.admission = Admission(self.limits, trusted_proxies)
        self.counters, self.clock, self._refused = owner or ListenerOwner(Counters())
        # Tasks that serve visitors.
        self._running: set[asyncio.Task[None]] = set()
        self.tls: CertificateStore | None = None
        """What connections that arrive from now on are shown."""
        # The congestion control of accepted sockets.
        self._congestion = congestion
        self.legs: set[Leg] = set()
        self._visitors: dict[Visitor, None] = {}
        self._accepting: dict[asyncio.Task[None], socket.socket] = {}
        self._arriving: dict[asyncio.Task[None], Visitor] = {}
        self._empty = asyncio.Event()
        self._empty.set()

    async def start(self, address: str, port: int, *, tls: CertificateStore | None = None) -> int:
        """Listen on one IP address (``::`` takes IPv4 too) and return the port. Port 0: any free one.

        Raises HostError.
        """
        sock = listening_socket(address, port)
        self.tls = tls
        if tls is not None:
            tls.prepare()
        if not prepare(sock, self._congestion):
            self.counters.count("congestion-control-refused")
        task = asyncio.get_running_loop().create_task(self._accept(sock))
        self._accepting[task] = sock
        return int(sock.getsockname()[1])

    @property
    def is_accepting(self) -> bool:
        """Whether connections are accepted now."""
        return bool(self._accepting) and not any(task.done() for task in self._accepting)

    async def supervise(self) -> None:
        """Return after :meth:`stop_accepting`. Raises UnexpectedEnd when accepting ends by itself."""
        tasks = list(self._accepting)
        while tasks:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                tasks.remove(task)
                if not task.cancelled():
                    raise UnexpectedEnd(
                        f"the exit no longer accepts connections ({task.exception()}); restart it"
                    ) from task.exception()

    def show(self, certificates: CertificateStore | None, sites: Sites) -> None:
        """Show other certificates and pages from the next handshake and request on."""
        if self.tls is not None and certificates is not None:
            self.tls.adopt(certificates)
        self.sites = sites

    def set_limits(self, limits: ListenLimits, trusted_proxies: Iterable[IpNetwork]) -> None:
        """Use other bounds, and trust other proxies, from now on."""
        self.limits = limits
        self.admission.set_limits(limits, trusted_proxies)

    async def stop_accepting(self) -> None:
        """Close the listening sockets; connections that exist go on."""
        tasks, self._accepting = self._accepting, {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for sock in tasks.values():
            sock.close()

    async def close(self) -> None:
        """Stop accepting, close every leg (1001), and return when all sockets are closed.

        Takes CLOSE_TIMEOUT at the most: then legs that have not answered are dropped.
        """
        await self.stop_accepting()
        for arrival in list(self._arriving):
            arrival.cancel()
        for task in self._running:
            task.cancel()
        for visitor in list(self._visitors):
            visitor.abort()
        for leg in list(self.legs):
            leg.close(1001, "going away")
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._empty.wait()
        except TimeoutError:
            for leg in list(self.legs):
                leg.abort()
        await self._empty.wait()

    # --- arrivals -----------------------------------------------------------------------------------

    async def _accept(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        in_a_row = 0
        while True:
            try:
                connection, address = await loop.sock_accept(sock)
            except OSError as error:
                self.counters.drop("accept-failed")
                if error.errno in SOCKET_IS_GONE:
                    raise
                is_short = error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
                await asyncio.sleep(ACCEPT_PAUSE if is_short else 0)
                continue
            self._arrived(connection, address[0], self.tls)
            in_a_row += 1
            if in_a_row == ACCEPT_BATCH:
                in_a_row = 0
                await asyncio.sleep(0)

    def _arrived(self, connection: socket.socket, address: str, tls: CertificateStore | None) -> None:
        """Take a connection or close it, always at once: strangers must not keep clients waiting."""
        now = self.clock()
        peer = parse_address(address) or ipaddress.IPv4Address(0)
        ticket = self.admission.admit(peer, now)
        if isinstance(ticket, str):
            self.refuse(peer, ticket)
            drop(connection)
            return
        self.counters.count("connections-accepted")
        self._empty.clear()
        visitor = Visitor(self, ticket)
        task = asyncio.get_running_loop().create_task(self._welcome(connection, visitor, tls))
        self._arriving[task] = visitor
        # In a callback, because a task that is cancelled before it began runs nothing of its own.
        task.add_done_callback(partial(self._welcomed, connection, visitor))
        if len(self._arriving) + len(self._visitors) > MAX_VISITORS:
            self._drop_a_visitor()

    def _drop_a_visitor(self) -> None:
        """Make room: the peer that has most connections without a request loses its oldest one.

        Peers that have joined lately are spared as long as there are others.
        """
        now = self.clock()
        by_peer: dict[PeerKey, list[Visitor]] = {}
        for visitor in chain(self._visitors, self._arriving.values()):
            by_peer.setdefault(peer_key(visitor.ticket.peer), []).append(visitor)
        visitor = max(
            by_peer.values(),
            key=lambda visitors: (not self.admission.is_known(visitors[0].ticket.peer, now), len(visitors)),
        )[0]
        self._visitors.pop(visitor, None)
        for task, arriving in self._arriving.items():
            if arriving is visitor:
                del self._arriving[task]
                task.cancel()
                break
        visitor.abort()  # it may have arrived in this very turn
        self.refuse(visitor.ticket.peer, "too-many-visitors")

    async def _welcome(
        self, connection: socket.socket, visitor: Visitor, tls: CertificateStore | None
    ) -> None:
        """Hand the connection to its visitor, over TLS if need be."""
        loop = asyncio.get_running_loop()
        transport: asyncio.Transport | None = None
        try:
            tune(connection)
            if tls is None:
                transport, _ = await loop.connect_accepted_socket(lambda: visitor, connection)
            else:
                context = tls.context_for(str(parse_address(connection.getsockname()[0])))
                transport = await encrypt(connection, visitor, context, deadline=self.limits.request_timeout)
            visitor.arrive(transport)
        except EarlyBytes:
            self.refuse(visitor.ticket.peer, "bytes-before-tls")
        except OSError:  # ssl.SSLError and every timeout are kinds of it
            self.refuse(visitor.ticket.peer, "tls-failed" if tls else "accept-failed")
        finally:
            if transport is not None and not visitor.arrived:
                transport.abort()

    def _welcomed(self, connection: socket.socket, visitor: Visitor, task: asyncio.Task[None]) -> None:
        self._arriving.pop(task, None)
        if not visitor.arrived:
            connection.close()
            visitor.connection_lost(None)

    # --- what visitors report -----------------------------------------------------------------------

    def refuse(self, peer: IpAddress, reason: str) -> None:
        """Count and report that ``peer`` was refused."""
        self.counters.drop(reason)
        self._refused(str(peer), reason)

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run the work of one visitor; it ends when the listener closes."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def visitor_came(self, visitor: Visitor) -> None:
        """A connection is ready for its request."""
        self._visitors[visitor] = None

    def visitor_left(self, visitor: Visitor) -> None:
        """A connection ended without having become a leg."""
        self._visitors.pop(visitor, None)
        self._give_back(visitor.ticket)

    def visitor_became(self, visitor: Visitor, leg: Leg) -> None:
        """A connection is a leg from now on."""
        self._visitors.pop(visitor, None)
        self.legs.add(leg)
        self.counters.count("legs-accepted")

    def leg_left(self, leg: Leg, ticket: Ticket) -> None:
        """A leg's socket is closed."""
        self.legs.discard(leg)
        self._give_back(ticket)

    def _give_back(self, ticket: Ticket) -> None:
        ticket.give_back()
        if not self.admission.connections:
            self._empty.set()
