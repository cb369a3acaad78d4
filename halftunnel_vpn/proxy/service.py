"""A proxy as a whole: its listeners, its connections, and the streams behind them."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from functools import partial

from halftunnel_vpn.config.proxy_server import Place, ProxyServerConfig
from halftunnel_vpn.config.proxy_server import place as place_of
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.host.resources import open_files
from halftunnel_vpn.protocol.interfaces import StreamOpener
from halftunnel_vpn.proxy.destination import authority_of
from halftunnel_vpn.proxy.http_negotiation import HttpNegotiation
from halftunnel_vpn.proxy.listeners import ProxyListener, check_place, place_text
from halftunnel_vpn.proxy.negotiation import FixedDestination, Negotiation
from halftunnel_vpn.proxy.proxy_client import ProxyClient
from halftunnel_vpn.proxy.proxy_context import ProxyContext
from halftunnel_vpn.proxy.socks import SocksNegotiation
from halftunnel_vpn.transport.driver import Driver
from halftunnel_vpn.transport.listening_socket import drop
from halftunnel_vpn.transport.relay.socket_watch import SocketWatch

SHARE_OF_FILES = 2
"""1/N of the files that this process may open are for connections of programs: an association has two."""

MakeNegotiation = Callable[[], Negotiation]

log = logging.getLogger(__name__)


class ProxyService:
    """Implements ProxyPort. ``group``: the number of the group whose members may use the Unix sockets."""

    def __init__(
        self,
        config: ProxyServerConfig,
        opener: StreamOpener,
        driver: Driver,
        counters: Counters,
        *,
        group: int | None = None,
    ) -> None:
        self._config = config
        self._group = group
        self._watch = SocketWatch(driver)
        self._context = ProxyContext(opener, driver, self._watch, counters, config.users)
        self._limit = min(config.connections, open_files() // SHARE_OF_FILES)
        self._listeners: list[ProxyListener] = []
        self._visitors: set[ProxyClient] = set()

    @property
    def connections(self) -> int:
        """How many programs are connected now."""
        return len(self._visitors)

    @property
    def listeners(self) -> list[ProxyListener]:
        """The open ones: SOCKS first, then HTTP, then forwarded ports."""
        return list(self._listeners)

    def open(self) -> None:
        """Bind every address. :meth:`serve` accepts. Raises HostError if one is in use."""
        config, context = self._config, self._context
        makers: list[tuple[Place, str, MakeNegotiation]] = []
        for place in config.socks:
            makers.append((place, "SOCKS", lambda: SocksNegotiation(context.users, context.counters)))
        for place in config.http:
            makers.append((place, "HTTP", lambda: HttpNegotiation(context.users, context.counters)))
        for text, destination in config.forward.items():
            host, port = authority_of(destination)
            makers.append((place_of(text), destination, partial(FixedDestination, host, port)))
        try:
            for place, meaning, make in makers:
                self._listen(place, meaning, make)
        except BaseException:
            self.close()
            raise

    def serve(self) -> None:
        """Accept connections from now on."""
        for listener in self._listeners:
            listener.start()

    def session_made(self, now: float) -> None:
        """Retry what waits for a session: there is one again."""
        for waiting in list(self._context.waiting):
            waiting.session_made(now)

    def close(self) -> None:
        """Stop listening, and end every connection. Repeatable."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        for visitor in list(self._visitors):
            visitor.close()

    def _listen(self, place: Place, meaning: str, make: MakeNegotiation) -> None:
        check_place(place, self._config.allow)
        listener = ProxyListener(
            place,
            lambda sock: self._accepted(sock, make),
            allow=self._config.allow,
            group=self._group,
            driver=self._context.driver,
            watch=self._watch,
            counters=self._context.counters,
        )
        self._listeners.append(listener)
        log.info("proxy: %s at %s", meaning, place_text(place))

    def _accepted(self, sock: socket.socket, make: MakeNegotiation) -> None:
        counters = self._context.counters
        if len(self._visitors) >= self._limit:
            counters.drop("proxy-too-many-connections")
            drop(sock)
            return
        counters.count("proxy-connections")
        visitor = ProxyClient(sock, make(), self._context, lambda: self._visitors.discard(visitor))
        self._visitors.add(visitor)
        visitor.start()
