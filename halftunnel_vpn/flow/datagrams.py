"""The common part of UDP and ICMP echo flows.

A flow belongs to one local endpoint, whatever its destinations are. It has one stream. A subclass builds the
frames for the host from a received run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Final

from halftunnel_vpn.errors import PacketError, WireError
from halftunnel_vpn.flow import icmp_error_frames
from halftunnel_vpn.flow.flow_context import FlowContext
from halftunnel_vpn.flow.interfaces import Buffer, DatagramPort
from halftunnel_vpn.icmp_error import IcmpErrorKind
from halftunnel_vpn.inet import icmp, ip
from halftunnel_vpn.protocol.datagram import DataRun, decode_run
from halftunnel_vpn.protocol.records import MAX_TRAIN_PAYLOAD
from halftunnel_vpn.protocol.stream_messages import ResetCode

MAX_PRIVATE: Final = 64
"""Private destinations that a flow remembers. The oldest one is discarded when there are more."""


class DatagramFlow(ABC):
    """One local endpoint: an address, and a port or identifier. Implements DatagramHandler.

    The creator must set ``stream``. The flow ends after ``idle_timeout`` seconds without a datagram.
    """

    __slots__ = (
        "_counters",
        "_dns",
        "_idle",
        "_idle_timeout",
        "_last_used",
        "_local",
        "_number",
        "_on_closed",
        "_private",
        "_public",
        "_sources",
        "_version",
        "_write",
        "is_over",
        "stream",
    )

    label: ClassVar[str]
    """The prefix of the names of its counters."""

    stream: DatagramPort

    def __init__(
        self,
        context: FlowContext,
        local: bytes,
        number: int,
        idle_timeout: float,
        on_closed: Callable[[DatagramFlow], None],
        now: float,
    ) -> None:
        self._local = local
        self._number = number
        self._version = 4 if len(local) == 4 else 6
        self._write = context.write
        self._dns = context.dns
        self._counters = context.counters
        self._on_closed = on_closed
        self._idle_timeout = idle_timeout
        self._last_used = now
        self._sources = context.sources
        # Destinations of this flow that are not public. Answers from them are accepted.
        self._private: dict[bytes, None] = {}
        # The last public destination, which need not be judged again.
        self._public = b""
        self.is_over = False
        self._idle = context.wheel.timer(self._check_idle)
        self._idle.arm(now + idle_timeout)

    @property
    def key(self) -> tuple[bytes, int]:
        """The local address, and the port or identifier."""
        return self._local, self._number

    # --- what a subclass implements --------------------------------------------------------------

    @abstractmethod
    def _deliver(self, source: bytes, run: DataRun) -> None:
        """Write the datagrams of ``run``, which come from the address ``source``, to the host."""

    @abstractmethod
    def _quote(self, port: int) -> tuple[int, bytes]:
        """Return the IP protocol and the first bytes of a datagram that this flow has sent to ``port``."""

    # --- accepted sources ------------------------------------------------------------------------

    def _sends_to(self, destination: bytes) -> None:
        """Remember ``destination`` if it is private, so that its answers are accepted."""
        if destination == self._public:
            return
        if self._sources.is_public(destination):
            self._public = destination
        elif destination not in self._private:
            if len(self._private) >= MAX_PRIVATE:
                del self._private[next(iter(self._private))]
            self._private[destination] = None

    def _may_come_from(self, source: bytes) -> bool:
        """Return whether ``source`` is a permitted source: public, or private and a destination of this flow.

        An exit must not be able to send datagrams in the name of the LAN, the link or the cloud of this host.
        """
        if source == self._public or self._sources.is_public(source):
            return True
        return source in self._private and self._sources.may_be_remote(source)

    # --- towards the exit ------------------------------------------------------------------------

    def _send(self, packet: ip.IpPacket, header: bytes, data: Buffer) -> None:
        """Send one run. If the datagram is too long for a record, send an ICMP error to the host instead."""
        room = MAX_TRAIN_PAYLOAD - len(header)
        if len(data) <= room:
            self.stream.send(header, data)
            return
        self._counters.drop(f"{self.label}-too-long")
        mtu = len(packet.raw) - (len(data) - room)
        error = icmp.build_error(packet, IcmpErrorKind.PACKET_TOO_BIG, source=packet.destination, mtu=mtu)
        if error is not None:
            self._write((error,))

    # --- DatagramHandler -------------------------------------------------------------------------

    def run_received(self, data: memoryview, now: float) -> None:
        """Write datagrams, or an ICMP error, from the Internet to the host."""
        self._last_used = now
        try:
            run = decode_run(data)
        except WireError as error:
            self._counters.drop(error.reason)
            return
        address: bytes | str | None = run.address
        if isinstance(address, str):
            address = self._dns.address_of(address, self._version)
        if address is None or len(address) != len(self._local):
            self._counters.drop(f"{self.label}-wrong-family")
        elif isinstance(run, DataRun):
            if isinstance(run.address, bytes) and not self._may_come_from(run.address):
                self._counters.drop(f"{self.label}-source-denied")
            else:
                self._deliver(address, run)
        else:
            try:
                frame = icmp_error_frames.error_frame(run, self._local, address, *self._quote(run.port))
            except PacketError as error:  # its destination cannot be that of a datagram of the host
                self._counters.drop(error.reason)
                return
            if frame is not None:
                self._write((frame,))

    def refused(self, code: ResetCode, now: float) -> None:
        """End the flow: the exit has no room for it."""
        self._counters.drop(f"{self.label}-refused")
        self.aborted(code, now)

    def aborted(self, code: ResetCode, now: float) -> None:
        """End the flow: the exit has ended it, or the session is lost. The next datagram opens a new flow."""
        self._end()

    def close(self) -> None:
        """End the flow here and at the exit."""
        self.stream.close()
        self._end()

    def _end(self) -> None:
        self.is_over = True
        self._idle.cancel()
        self._on_closed(self)

    def _check_idle(self, now: float) -> None:
        deadline = self._last_used + self._idle_timeout
        if now < deadline:
            self._idle.arm(deadline)
            return
        self._counters.count(f"{self.label}-flows-idle")
        self.close()
