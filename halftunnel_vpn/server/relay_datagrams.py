"""NAT egress of one datagram stream: the common part of UDP and ICMP echo.

A stream has one socket per address family for all destinations. A subclass turns a run into datagrams of the
socket, and received datagrams into a run.
"""

from __future__ import annotations

import errno
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import WireError
from halftunnel_vpn.icmp_error import IcmpErrorKind
from halftunnel_vpn.protocol.datagram import (
    MAX_RUN_DATA,
    DataRun,
    ErrorRun,
    decode_run,
    encode_error,
    encode_run_header,
)
from halftunnel_vpn.protocol.stream_messages import ResetCode
from halftunnel_vpn.protocol.wire import Buffer
from halftunnel_vpn.server import icmp_errors
from halftunnel_vpn.server.datagram_batch import FIRST_SIZE, DatagramBatch, Received
from halftunnel_vpn.server.datagram_names import DatagramNames, Resolve
from halftunnel_vpn.server.egress import EgressPolicy
from halftunnel_vpn.session.datagram_stream import DatagramStream
from halftunnel_vpn.transport.driver import Driver
from halftunnel_vpn.transport.kernel.scheduling import give_way
from halftunnel_vpn.transport.relay.meter import Meter
from halftunnel_vpn.transport.relay.socket_watch import FAILED, READABLE, SocketWatch

READS_PER_WAKE = 4
"""Reads of one socket, of many datagrams each, before other events get their turn."""

SILENCE = 0.001
"""Seconds without a datagram after which the next one is probably alone, and is read as such."""

MAX_PAUSE = 0.01
"""Seconds for which a socket stays unread because enough data waits for a leg. Then the oldest is dropped."""

DEFAULT_HOP_LIMIT = 64
"""The hop limit of a run that states none."""

_KINDS = {
    errno.ENETUNREACH: IcmpErrorKind.NET_UNREACHABLE,
    errno.EAFNOSUPPORT: IcmpErrorKind.NET_UNREACHABLE,
    errno.EADDRNOTAVAIL: IcmpErrorKind.NET_UNREACHABLE,
    errno.EACCES: IcmpErrorKind.ADMIN_PROHIBITED,
    errno.EPERM: IcmpErrorKind.ADMIN_PROHIBITED,
    errno.ECONNREFUSED: IcmpErrorKind.PORT_UNREACHABLE,
}
"""The reset code for an errno of sending or of opening the socket. Any other is HOST_UNREACHABLE."""


@dataclass(frozen=True, slots=True)
class RelayContext:
    """What the relays of all streams of one client share."""

    driver: Driver
    watch: SocketWatch
    batch: DatagramBatch
    policy: EgressPolicy
    resolve: Resolve
    counters: Counters
    meter: Meter


class DatagramRelay(ABC):
    """Moves datagrams between ``stream`` and its sockets; implements DatagramHandler.

    The stream and its sockets are closed after ``idle_timeout`` seconds without a datagram. ``room_for``
    returns whether the stream may have that many sockets.
    """

    label: ClassVar[str]
    """The prefix of the names of its counters."""

    joins: ClassVar[bool]
    """Whether several datagrams may travel as one run."""

    def __init__(
        self,
        stream: DatagramStream,
        context: RelayContext,
        idle_timeout: float,
        room_for: Callable[[int], bool],
        on_closed: Callable[[], None],
    ) -> None:
        self._stream = stream
        driver = context.driver
        self._driver = driver
        self._watch = context.watch
        self._batch = context.batch
        self._policy = context.policy
        self._counters = context.counters
        self._meter = context.meter
        self._names = DatagramNames(
            context.resolve, context.policy, context.counters, self._send, self._name_not_found
        )
        self._room_for = room_for
        self._on_closed = on_closed
        self._idle_timeout = idle_timeout
        self._idle = driver.wheel.timer(self._check_idle)
        self._last_used = driver.clock()
        self._idle.arm(self._last_used + idle_timeout)
        self._sockets: dict[int, socket.socket] = {}
        self._hop_limits: dict[int, int] = {}
        self._is_closed = False
        self._expected = FIRST_SIZE
        self._last_read = 0.0
        self._paused: list[socket.socket] = []
        self._paused_at = 0.0
        self._pause = driver.wheel.timer(self._pause_is_over)

    # --- what a subclass implements --------------------------------------------------------------

    @abstractmethod
    def _make_socket(self, family: socket.AddressFamily) -> socket.socket:
        """Return a non-blocking, bound socket to send from. Raises OSError."""

    @abstractmethod
    def _transmit(self, sock: socket.socket, family: int, run: DataRun, address: str) -> None:
        """Send the datagrams of ``run`` to ``address`` and the run's port. Raises OSError."""

    @abstractmethod
    def _understand(self, family: int, received: Received) -> tuple[int, Buffer] | None:
        """Return port and data of the run for ``received``; None if it is not for the client."""

    @abstractmethod
    def _port_of(self, error: icmp_errors.SocketError) -> int | None:
        """Return the port of the run whose datagram caused ``error``; None if unknown."""

    # --- DatagramHandler -------------------------------------------------------------------------

    def run_received(self, data: memoryview, now: float) -> None:
        """Send datagrams of the client."""
        self._last_used = now
        try:
            run = decode_run(data)
        except WireError as error:
            self._counters.drop(error.reason)
            return
        if isinstance(run, ErrorRun):
            self._counters.drop("datagram-unexpected-error")
        elif isinstance(run.address, str):
            self._names.send(run.address, run)
        else:
            self._send(run.address, run)

    def refused(self, code: ResetCode, now: float) -> None:
        """Close: the client has ended the stream."""
        self._close()

    def aborted(self, code: ResetCode, now: float) -> None:
        """Close: the client has ended the stream, or its session has ended."""
        self._close()

    # --- towards the Internet --------------------------------------------------------------------

    def _send(self, address: bytes, run: DataRun) -> None:
        if not self._policy.permits(address):
            self._counters.drop("egress-denied")
            self._report(IcmpErrorKind.ADMIN_PROHIBITED, b"", address, run.port)
            return
        gate = self._meter.up
        if gate.rate and not gate.is_open():
            self._counters.drop("rate-exceeded")
            return
        family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
        try:
            sock = self._sockets.get(family) or self._open(family)
        except OSError as error:
            self._counters.drop(f"{self.label}-no-socket")
            self._report_failure(error, address, run.port)
            return
        if run.hop_limit != self._hop_limits[family]:
            self._set_hop_limit(sock, run.hop_limit)
        destination = socket.inet_ntop(family, address)
        for attempt in (1, 2):
            try:
                self._transmit(sock, family, run, destination)
                self._meter.sent += len(run.data)
                gate.take(len(run.data))
                return
            except BlockingIOError:
                self._counters.drop(f"{self.label}-send-buffer-full")
                return
            except OSError as error:
                # The kernel reports an ICMP error of an earlier datagram here. Read it, then send this one.
                errors = icmp_errors.read(sock)
                self._pass_on(errors)
                if not errors or attempt == 2:
                    self._counters.drop(f"{self.label}-send-failed")
                    if not errors:
                        self._report_failure(error, address, run.port)
                    return

    def _name_not_found(self, name: str, run: DataRun) -> None:
        self._stream.send(encode_error(ErrorRun(IcmpErrorKind.HOST_UNREACHABLE, b"", name, run.port)))

    def _open(self, family: socket.AddressFamily) -> socket.socket:
        if not self._room_for(len(self._sockets) + 1):
            raise OSError(errno.EMFILE, "no more sockets for this client")
        sock = self._make_socket(family)
        try:
            icmp_errors.enable(sock)
            self._watch.set(sock, READABLE, self._ready)
        except OSError:
            sock.close()
            raise
        self._sockets[family] = sock
        self._hop_limits[family] = -1
        return sock

    def _set_hop_limit(self, sock: socket.socket, hop_limit: int) -> None:
        if sock.family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hop_limit or DEFAULT_HOP_LIMIT)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hop_limit or DEFAULT_HOP_LIMIT)
        self._hop_limits[sock.family] = hop_limit

    # --- from the Internet -----------------------------------------------------------------------

    def _ready(self, sock: socket.socket, events: int) -> None:
        now = self._driver.clock()
        if events & FAILED:
            self._pass_on(icmp_errors.read(sock))
        self._read(sock, now, may_wait=True)

    def _read(self, sock: socket.socket, now: float, *, may_wait: bool) -> None:
        stream = self._stream
        # Its own attribute makes an enumeration member each time.
        family = socket.AF_INET if sock is self._sockets.get(socket.AF_INET) else socket.AF_INET6
        is_alone = may_wait and now - self._last_read > SILENCE
        self._last_read = now
        for _ in range(READS_PER_WAKE):
            if may_wait and stream.has_enough:
                self._leave_unread(sock, now)
                return
            try:
                if is_alone:
                    reading = self._batch.receive_one(sock, family, self._expected)
                else:
                    reading = self._batch.receive(sock, self._expected, join=self.joins)
            except BlockingIOError:
                return
            except OSError:
                self._pass_on(icmp_errors.read(sock))
                return
            self._last_used = now
            self._expected = reading.expected
            for received in reading.runs:
                understood = self._understand(family, received)
                if understood is not None:
                    self._send_run(received[0], *understood, received[3])
            if not reading.more:
                if not is_alone and reading.has_many:
                    give_way()  # read too early: a sender on this machine may add more datagrams to the run
                return

    def _leave_unread(self, sock: socket.socket, now: float) -> None:
        """Stop reading ``sock`` for a while: its datagrams would only displace those that wait for a leg."""
        if sock in self._paused:
            return
        self._watch.set(sock, 0, self._ready)
        if not self._paused:
            self._paused_at = now
        self._paused.append(sock)
        self._stream.tell_when_drained(self._read_again)
        if not self._pause.armed:
            self._pause.arm(now + MAX_PAUSE)

    def _read_again(self) -> None:
        paused, self._paused = self._paused, []
        for sock in paused:
            self._watch.set(sock, READABLE, self._ready)

    def _pause_is_over(self, now: float) -> None:
        if not self._paused:
            return
        if now >= self._paused_at + MAX_PAUSE:
            self._paused_at = now
            # The legs are slow or lost. New data is worth more than old data.
            for sock in self._paused:
                self._read(sock, now, may_wait=False)
        self._pause.arm(self._paused_at + MAX_PAUSE)

    def _send_run(self, address: bytes, port: int, data: Buffer, segment_size: int) -> None:
        gate = self._meter.down
        if gate.rate and not gate.is_open():
            self._counters.drop("rate-exceeded")
            return
        self._meter.received += len(data)
        gate.take(len(data))
        host = self._names.host_of(address)
        header = encode_run_header(host, port, segment_size=segment_size)
        if segment_size and len(data) > MAX_RUN_DATA:
            first = MAX_RUN_DATA // segment_size * segment_size
            self._stream.send(header, data[:first])
            data = data[first:]
        self._stream.send(header, data)

    def _pass_on(self, errors: list[icmp_errors.SocketError]) -> None:
        for error in errors:
            port = self._port_of(error)
            if port is not None:
                self._report(error.kind, error.offender, error.address, port, error.mtu)

    def _report(self, kind: IcmpErrorKind, offender: bytes, address: bytes, port: int, mtu: int = 0) -> None:
        host = self._names.host_of(address)
        self._stream.send(encode_error(ErrorRun(kind, offender, host, port, mtu)))

    def _report_failure(self, error: OSError, address: bytes, port: int) -> None:
        kind = _KINDS.get(error.errno or 0, IcmpErrorKind.HOST_UNREACHABLE)
        self._report(kind, b"", address, port)

    # --- the end ---------------------------------------------------------------------------------

    def _check_idle(self, now: float) -> None:
        deadline = self._last_used + self._idle_timeout
        if now < deadline:
            self._idle.arm(deadline)
            return
        self._counters.count(f"{self.label}-streams-idle")
        self._stream.close()
        self._close()

    def _close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._idle.cancel()
        self._pause.cancel()
        self._paused.clear()
        for sock in self._sockets.values():
            self._watch.remove(sock)
            sock.close()
        self._sockets.clear()
        self._names.close()
        self._on_closed()
