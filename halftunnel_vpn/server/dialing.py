"""Connections to destinations: a bounded number at once, with happy eyeballs (RFC 8305) among addresses."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.icmp_error import IcmpErrorKind
from halftunnel_vpn.protocol.stream_messages import ResetCode
from halftunnel_vpn.server import icmp_errors
from halftunnel_vpn.timers import Timer
from halftunnel_vpn.transport.driver import Driver
from halftunnel_vpn.transport.happy_eyeballs import ATTEMPT_DELAY, MAX_ADDRESSES
from halftunnel_vpn.transport.relay.socket_watch import ENDED, WRITABLE, SocketWatch

KEEPALIVE_IDLE = 60
"""Seconds of silence after which the kernel probes a destination, and between two probes. NATs and firewalls
on the path forget idle connections, some after five minutes."""

DEFAULT_HOPS = -1
"""The value in setsockopt for the system's default hop limit (ip(7), ipv6(7))."""

KEEPALIVE_PROBES = 10
"""Unanswered probes after which a destination is considered dead."""

_CODES = {
    errno.ECONNREFUSED: ResetCode.REFUSED,
    errno.EHOSTUNREACH: ResetCode.HOST_UNREACHABLE,
    errno.EHOSTDOWN: ResetCode.HOST_UNREACHABLE,
    errno.ENETUNREACH: ResetCode.NETWORK_UNREACHABLE,
    errno.EADDRNOTAVAIL: ResetCode.NETWORK_UNREACHABLE,
    errno.EAFNOSUPPORT: ResetCode.NETWORK_UNREACHABLE,
    errno.ETIMEDOUT: ResetCode.TIMED_OUT,
    errno.EACCES: ResetCode.DENIED,
    errno.EPERM: ResetCode.DENIED,
    errno.EMFILE: ResetCode.LIMIT,
    errno.ENFILE: ResetCode.LIMIT,
    errno.ENOBUFS: ResetCode.LIMIT,
    errno.ENOMEM: ResetCode.LIMIT,
    errno.ECONNRESET: ResetCode.REFUSED,
}


def reset_code(number: int | None) -> ResetCode:
    """Return the reset code for a failed connect. ``number`` is an errno."""
    return _CODES.get(number or 0, ResetCode.HOST_UNREACHABLE)


@dataclass(frozen=True, slots=True)
class DialLimits:
    """Limits of dials, running and waiting, per client and in total; and seconds for one dial."""

    per_client: int = 256
    total: int = 1024
    waiting_per_client: int = 2048
    waiting: int = 8192
    timeout: float = 10.0


def _keep_alive(sock: socket.socket) -> None:
    """Enable probes of the destination. The application's own keepalives end at the client."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_IDLE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)


def _limit_hops(sock: socket.socket, hop_limit: int) -> None:
    """Send with ``hop_limit`` and keep ICMP errors of routers; 0 restores the system's default."""
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hop_limit or DEFAULT_HOPS)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hop_limit or DEFAULT_HOPS)
    icmp_errors.enable(sock, on=hop_limit > 0)


class Dialer:
    """Opens TCP connections for clients, within limits. Each dial ends with exactly one callback.

    Clients with waiting dials take turns: one with many does not delay one with few.
    """

    def __init__(self, driver: Driver, limits: DialLimits, counters: Counters) -> None:
        self.driver = driver
        self.counters = counters
        self.limits = limits
        self.watch = SocketWatch(driver)
        self._waiting: dict[Hashable, dict[Dial, None]] = {}  # the next client's dials come first
        self._waiting_total = 0
        self._under_way: dict[Hashable, int] = {}
        self._total = 0

    def dial(
        self,
        client: Hashable,
        addresses: Sequence[bytes],
        port: int,
        connected: Callable[[socket.socket], None],
        failed: Callable[[ResetCode], None],
        *,
        hop_limit: int = 0,
    ) -> Dial:
        """Connect to the first of ``addresses`` that answers. The limits of ``client`` apply.

        ``connected`` gets a connected, non-blocking socket, which :attr:`watch` goes on watching; its new
        owner must choose the events. ``failed`` gets the reason. Neither is called before this method has
        returned, nor after ``Dial.cancel``. ``hop_limit`` is that of the SYN; 0 means the system's default.
        """
        dial = Dial(self, client, addresses[:MAX_ADDRESSES], port, connected, failed, hop_limit)
        if self._may_start(client):
            self._start(dial)
        elif (
            self._waiting_total < self.limits.waiting
            and len(self._waiting.get(client, ())) < self.limits.waiting_per_client
        ):
            self._waiting.setdefault(client, {})[dial] = None
            self._waiting_total += 1
        else:
            self.counters.drop("dial-queue-full")
            self.driver.loop.call_soon(dial.fail, ResetCode.LIMIT)
        return dial

    def _may_start(self, client: Hashable) -> bool:
        return self._total < self.limits.total and self._under_way.get(client, 0) < self.limits.per_client

    def _start(self, dial: Dial) -> None:
        self._total += 1
        self._under_way[dial.client] = self._under_way.get(dial.client, 0) + 1
        self.counters.count("dials")
        dial.start(self.driver.clock())

    def ended(self, client: Hashable) -> None:
        """Note that a started dial has ended; start the next waiting dial that may start."""
        self._total -= 1
        self._under_way[client] -= 1
        if not self._under_way[client]:
            del self._under_way[client]
        for waiting in self._waiting:
            if self._may_start(waiting):
                dials = self._waiting.pop(waiting)
                dial = next(iter(dials))
                self._waiting[waiting] = dials  # to the end of the queue
                self.given_up(dial)
                self._start(dial)
                return

    def given_up(self, dial: Dial) -> None:
        """Remove a waiting dial: it is cancelled or about to start."""
        dials = self._waiting.get(dial.client, {})
        if dial in dials:
            del dials[dial]
            self._waiting_total -= 1
            if not dials:
                del self._waiting[dial.client]


class Dial:
    """One dial of a :class:`Dialer`."""

    __slots__ = (
        "_addresses",
        "_connected",
        "_deadline",
        "_dialer",
        "_failed",
        "_hop_limit",
        "_last_code",
        "_pending",
        "_port",
        "_stagger",
        "_started",
        "client",
        "is_over",
        "offender",
    )

    def __init__(
        self,
        dialer: Dialer,
        client: Hashable,
        addresses: Sequence[bytes],
        port: int,
        connected: Callable[[socket.socket], None],
        failed: Callable[[ResetCode], None],
        hop_limit: int,
    ) -> None:
        self.client = client
        self.offender = b""
        self._hop_limit = hop_limit
        self.is_over = False
        self._dialer = dialer
        self._addresses = list(addresses)
        self._port = port
        self._connected = connected
        self._failed = failed
        self._pending: set[socket.socket] = set()
        self._started = False
        self._last_code = ResetCode.HOST_UNREACHABLE
        self._deadline: Timer | None = None
        self._stagger: Timer | None = None  # most dials have only one address and need none

    def cancel(self) -> None:
        """Cancel the dial. No callback follows."""
        self._end()

    def start(self, now: float) -> None:
        """Try the first address."""
        self._started = True
        self._deadline = self._dialer.driver.wheel.timer(self._timed_out)
        self._deadline.arm(now + self._dialer.limits.timeout)
        self._next(now)

    def fail(self, code: ResetCode) -> None:
        """End without a connection."""
        if not self.is_over:
            self._end()
            self._failed(code)

    def _next(self, now: float) -> None:
        if self.is_over:
            return
        if not self._addresses:
            if not self._pending:
                self._dialer.driver.loop.call_soon(self.fail, self._last_code)
            return
        address = self._addresses.pop(0)
        family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
        try:
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except OSError as error:
            self._attempt_failed(error.errno)
            return
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _keep_alive(sock)
            # Keep an urgent byte at its place in the stream (RFC 6093 section 6); otherwise it would be lost.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
            if self._hop_limit:
                _limit_hops(sock, self._hop_limit)
            status = sock.connect_ex((socket.inet_ntop(family, address), self._port))
            if status in (0, errno.EINPROGRESS):
                self._dialer.watch.set(sock, WRITABLE, self._settled)
                status = 0
        except OSError as error:
            status = error.errno or errno.EINVAL
        if status:
            sock.close()
            self._attempt_failed(status)
            return
        self._pending.add(sock)
        if self._addresses:
            if self._stagger is None:
                self._stagger = self._dialer.driver.wheel.timer(self._next)
            self._stagger.arm(now + ATTEMPT_DELAY)

    def _settled(self, sock: socket.socket, events: int) -> None:
        self._pending.discard(sock)
        # The kernel reports an error or hang-up if there is one; otherwise the connection is established.
        status = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if events & ENDED else 0
        if status:
            if self._hop_limit:
                self._read_offender(sock)
            self._dialer.watch.forget(sock)
            sock.close()
            self._attempt_failed(status)
            return
        if self._hop_limit:
            _limit_hops(sock, 0)
        self._end()
        self._connected(sock)

    def _read_offender(self, sock: socket.socket) -> None:
        for error in icmp_errors.read(sock):
            if error.kind is IcmpErrorKind.TIME_EXCEEDED:
                self.offender = error.offender

    def _attempt_failed(self, number: int | None) -> None:
        self._last_code = ResetCode.HOP_LIMIT_EXCEEDED if self.offender else reset_code(number)
        self._next(self._dialer.driver.clock())

    def _timed_out(self, now: float) -> None:
        self.fail(ResetCode.TIMED_OUT)

    def _stop_timers(self) -> None:
        """Release the timers, so that an ended dial does not wait for the garbage collector."""
        for timer in (self._deadline, self._stagger):
            if timer is not None:
                timer.cancel()
        self._deadline = self._stagger = None

    def _end(self) -> None:
        if self.is_over:
            return
        self.is_over = True
        self._stop_timers()
        for sock in self._pending:
            self._dialer.watch.forget(sock)
            sock.close()
        self._pending.clear()
        if self._started:
            self._dialer.ended(self.client)
        else:
            self._dialer.given_up(self)
