"""The listening sockets of the proxy, and the hosts and users that may connect to them."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Callable, Sequence

from halftunnel_vpn.config.net import Endpoint, Network
from halftunnel_vpn.control import unix_socket
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import HostError
from halftunnel_vpn.timers import Timer
from halftunnel_vpn.transport.driver import Driver
from halftunnel_vpn.transport.listening_socket import ACCEPT_BACKLOG, drop, listening_socket
from halftunnel_vpn.transport.relay.socket_watch import READABLE, SocketWatch

ACCEPTS_PER_WAKE = 64
"""Connections accepted before other events get their turn."""

REST = 0.5
"""Seconds without accepting after the process has run out of descriptors or memory."""

SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""Errors of accept(2) after which the next attempt would fail as well."""

KEEPALIVE_IDLE = 60
"""Seconds of silence before the kernel probes a program on another host."""

Accepted = Callable[[socket.socket], None]


class ProxyListener:
    """One listening socket; ``accepted`` is called with each permitted connection.

    ``place`` is an address and a port, or the path of a Unix socket, which its owner may use and, with
    ``group``, the members of that group. Raises HostError when it cannot be opened.
    """

    def __init__(
        self,
        place: Endpoint | str,
        accepted: Accepted,
        *,
        allow: Sequence[Network],
        group: int | None,
        driver: Driver,
        watch: SocketWatch,
        counters: Counters,
    ) -> None:
        self.place = place
        self._accepted = accepted
        self._allow = allow
        self._driver = driver
        self._watch = watch
        self._counters = counters
        self._rest: Timer = driver.wheel.timer(self._rested)
        if isinstance(place, str):
            self._sock = unix_socket.claim(place, group=group, purpose="proxy socket")
            self._sock.listen(ACCEPT_BACKLOG)
        else:
            self._sock = listening_socket(place.host, place.port)

    @property
    def port(self) -> int:
        """The port, 0 for a Unix socket."""
        return 0 if isinstance(self.place, str) else int(self._sock.getsockname()[1])

    def start(self) -> None:
        """Accept connections from now on."""
        self._watch.set(self._sock, READABLE, self._ready)

    def close(self) -> None:
        """Stop, and remove a Unix socket. Repeatable."""
        if self._sock.fileno() < 0:
            return
        self._rest.cancel()
        if isinstance(self.place, str):
            unix_socket.release(self.place)
        self._watch.remove(self._sock)
        self._sock.close()

    def _ready(self, sock: socket.socket, events: int) -> None:
        for _ in range(ACCEPTS_PER_WAKE):
            try:
                connection, address = sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._counters.drop("proxy-accept-failed")
                if error.errno in SHORT:
                    self._watch.remove(sock)
                    self._rest.arm(self._driver.clock() + REST)
                    return
                continue  # the connection is gone already
            connection.setblocking(False)
            if not isinstance(self.place, str):
                if not self._may_connect(address[0]):
                    self._counters.drop("proxy-source-denied")
                    drop(connection)
                    continue
                _tune(connection)
            self._accepted(connection)

    def _may_connect(self, host: str) -> bool:
        address = ipaddress.ip_address(host.partition("%")[0])
        address = getattr(address, "ipv4_mapped", None) or address
        return address.is_loopback or any(address in network for network in self._allow)

    def _rested(self, now: float) -> None:
        self.start()


def place_text(place: Endpoint | str) -> str:
    """Return ``place`` as text."""
    if isinstance(place, str):
        return os.fspath(place)
    return f"[{place.host}]:{place.port}" if ":" in place.host else f"{place.host}:{place.port}"


def check_place(place: Endpoint | str, allow: Sequence[Network]) -> None:
    """Refuse to listen for other hosts if no network is named. Raises HostError."""
    if not isinstance(place, str) and not ipaddress.ip_address(place.host).is_loopback and not allow:
        raise HostError(
            f"{place_text(place)} can be reached by other hosts: name the networks that may use the proxy "
            "(--allow NETWORK, or allow in [proxy_server]), or listen on 127.0.0.1"
        )


def _tune(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
