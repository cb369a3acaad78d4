"""ICMP flows: the echo requests of one identifier, carried for real."""

from __future__ import annotations

from collections.abc import Callable

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import WireError
from halftunnel_vpn.flow import icmp_errors
from halftunnel_vpn.flow.ports import DatagramPort, DnsPort, FrameWriter
from halftunnel_vpn.packet import icmp, ip
from halftunnel_vpn.protocol.datagram import DataRun, decode_run, encode_run_header
from halftunnel_vpn.protocol.opening import ResetCode
from halftunnel_vpn.timers import Wheel


class IcmpFlow:
    """One program that pings; implements DatagramHandler."""

    __slots__ = (
        "_counters",
        "_dns",
        "_identifier",
        "_idle",
        "_idle_timeout",
        "_local",
        "_on_closed",
        "_write",
        "stream",
    )

    stream: DatagramPort

    def __init__(
        self,
        local: bytes,
        identifier: int,
        *,
        write: FrameWriter,
        dns: DnsPort,
        wheel: Wheel,
        idle_timeout: float,
        counters: Counters,
        on_closed: Callable[[IcmpFlow], None],
        now: float,
    ) -> None:
        self._local = local
        self._identifier = identifier
        self._write = write
        self._dns = dns
        self._counters = counters
        self._on_closed = on_closed
        self._idle_timeout = idle_timeout
        self._idle = wheel.timer(self._timed_out)
        self._idle.arm(now + idle_timeout)

    @property
    def key(self) -> tuple[bytes, int]:
        """Local address and identifier."""
        return self._local, self._identifier

    def echo_arrived(self, packet: ip.IpPacket, echo: icmp.Echo, now: float) -> None:
        """The host sent an echo request."""
        self._idle.arm(now + self._idle_timeout)
        header = encode_run_header(
            packet.destination,
            echo.sequence,
            hop_limit=packet.hop_limit,
            traffic_class=packet.traffic_class,
        )
        self.stream.send(header, echo.payload)

    def run_received(self, data: memoryview, now: float) -> None:
        """A reply, or an ICMP error, from the Internet."""
        try:
            run = decode_run(data)
        except WireError as error:
            self._counters.drop(error.reason)
            return
        if not isinstance(run, DataRun):
            protocol = icmp_errors.echo_protocol(self._local)
            quote = icmp_errors.quote_echo(self._identifier)
            if not icmp_errors.write_error(run, self._local, protocol, quote, self._dns, self._write):
                self._counters.drop("icmp-error-without-address")
            return
        if not isinstance(run.address, bytes) or len(run.address) != len(self._local):
            self._counters.drop("icmp-wrong-family")
            return
        self._write(icmp.build_echo_reply(run.address, self._local, self._identifier, run.port, run.data))

    def refused(self, code: ResetCode, now: float) -> None:
        """The exit sends no echo requests."""
        self._counters.drop("icmp-refused")
        self.aborted(code, now)

    def aborted(self, code: ResetCode, now: float) -> None:
        """The exit has forgotten the flow, or the session is gone."""
        self._idle.cancel()
        self._on_closed(self)

    def _timed_out(self, now: float) -> None:
        self._idle.cancel()
        self.stream.close()
        self._on_closed(self)
