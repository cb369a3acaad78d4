"""Flows without connections: what UDP and ICMP echo have in common.

A flow is one local endpoint, whatever it talks to, and has one stream. How a run becomes frames for the host
is for the subclass to say.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import PacketError, WireError
from halftunnel_vpn.flow import icmp_error_frames
from halftunnel_vpn.flow.interfaces import Buffer, DatagramPort, DnsPort, FrameWriter, OpenRun
from halftunnel_vpn.icmp_error import IcmpErrorKind
from halftunnel_vpn.inet import icmp, ip
from halftunnel_vpn.inet.special_purpose import SourceFilter
from halftunnel_vpn.protocol.datagram import DataRun, decode_run
from halftunnel_vpn.protocol.records import MAX_TRAIN_PAYLOAD
from halftunnel_vpn.protocol.stream_messages import ResetCode
from halftunnel_vpn.timers import Wheel

MAX_PRIVATE: Final = 64
"""Private destinations that a flow remembers to have sent to; the oldest is forgotten."""


@dataclass(frozen=True, slots=True)
class FlowContext:
    """What all flows of one tracker share.

    ``segments`` tells whether the TUN device takes several UDP datagrams in one frame. ``give_way`` is called
    after several were written: a socket has room for about a hundred, and its reader must get to it.
    """

    write: FrameWriter
    dns: DnsPort
    segments: bool
    wheel: Wheel
    counters: Counters
    open_runs: list[OpenRun]
    """Flows with datagrams that leave at the end of the batch of frames."""
    give_way: Callable[[], None]
    sources: SourceFilter
    """From where datagrams may come."""


class DatagramFlow(ABC):
    """One local endpoint: an address, and a port or identifier. Implements DatagramHandler.

    Whoever makes it sets ``stream``. It is over after ``idle_timeout`` seconds without a datagram.
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
        "_sources",
        "_version",
        "_write",
        "is_over",
        "stream",
    )

    label: ClassVar[str]
    """What counted events begin with."""

    stream: DatagramPort

    def __init__(
        self,
        around: FlowContext,
        local: bytes,
        number: int,
        idle_timeout: float,
        on_closed: Callable[[DatagramFlow], None],
        now: float,
    ) -> None:
        self._local = local
        self._number = number
        self._version = 4 if len(local) == 4 else 6
        self._write = around.write
        self._dns = around.dns
        self._counters = around.counters
        self._on_closed = on_closed
        self._idle_timeout = idle_timeout
        self._last_used = now
        self._sources = around.sources
        # Destinations of this flow that are not public: their answers are welcome.
        self._private: dict[bytes, None] = {}
        self.is_over = False
        self._idle = around.wheel.timer(self._check_idle)
        self._idle.arm(now + idle_timeout)

    @property
    def key(self) -> tuple[bytes, int]:
        """Local address, and port or identifier."""
        return self._local, self._number

    # --- what differs ----------------------------------------------------------------------------

    @abstractmethod
    def _deliver(self, source: bytes, run: DataRun) -> None:
        """Give the host what ``run`` holds, from the address ``source``."""

    @abstractmethod
    def _quote(self, port: int) -> tuple[int, bytes]:
        """The IP protocol and the first bytes of what this flow once sent to ``port``."""

    # --- who may answer --------------------------------------------------------------------------

    def _sends_to(self, destination: bytes) -> None:
        """The host sends to ``destination``."""
        if not self._sources.is_public(destination) and destination not in self._private:
            if len(self._private) >= MAX_PRIVATE:
                del self._private[next(iter(self._private))]
            self._private[destination] = None

    def _may_come_from(self, source: bytes) -> bool:
        """Whether ``source`` is a permitted destination: public, or private and the host has sent there.

        An exit must not speak for the LAN, the link or the cloud that this host is in.
        """
        if self._sources.is_public(source):
            return True
        return source in self._private and self._sources.may_be_remote(source)

    # --- towards the exit ------------------------------------------------------------------------

    def _send(self, packet: ip.IpPacket, header: bytes, data: Buffer) -> None:
        """One run; the host is told when its datagram is longer than a record has room for."""
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
        """Datagrams, or an ICMP error, from the Internet."""
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
            except PacketError as error:  # about a destination that no datagram of the host can have had
                self._counters.drop(error.reason)
                return
            if frame is not None:
                self._write((frame,))

    def refused(self, code: ResetCode, now: float) -> None:
        """The exit has no room for the flow."""
        self._counters.drop(f"{self.label}-refused")
        self.aborted(code, now)

    def aborted(self, code: ResetCode, now: float) -> None:
        """The exit has forgotten the flow, or the session is gone: the next datagram opens a new one."""
        self._end()

    def close(self) -> None:
        """Forget the flow here and at the exit."""
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
