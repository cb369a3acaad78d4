"""UDP flows: one stream for one local endpoint, whatever it talks to (RFC 4787, REQ-1)."""

from __future__ import annotations

from collections.abc import Callable

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import WireError
from halftunnel_vpn.flow import icmp_errors
from halftunnel_vpn.flow.ports import DatagramPort, DnsPort, FrameWriter
from halftunnel_vpn.packet import ip, udp
from halftunnel_vpn.protocol.datagram import (
    MAX_RUN_SEGMENTS,
    DataRun,
    decode_run,
    encode_run_header,
)
from halftunnel_vpn.protocol.opening import ResetCode
from halftunnel_vpn.protocol.wire import Buffer
from halftunnel_vpn.timers import Wheel

MAX_RUN_DATA = 60_000
"""Bytes of data after which a run of several datagrams is cut in two: it has to fit a record."""

MAX_RUN_HEADERS = 64
"""Headers of runs that a flow remembers; nearly every flow talks to one destination only."""


class UdpFlow:
    """One local endpoint; implements DatagramHandler.

    ``segments`` tells whether the TUN device takes several datagrams in one frame.
    """

    __slots__ = (
        "_counters",
        "_dns",
        "_headers",
        "_idle",
        "_idle_timeout",
        "_last_used",
        "_local",
        "_on_closed",
        "_port",
        "_segments",
        "_write",
        "stream",
    )

    stream: DatagramPort

    def __init__(
        self,
        local: bytes,
        port: int,
        *,
        write: FrameWriter,
        segments: bool,
        dns: DnsPort,
        wheel: Wheel,
        idle_timeout: float,
        counters: Counters,
        on_closed: Callable[[UdpFlow], None],
        now: float,
    ) -> None:
        self._local = local
        self._port = port
        self._write = write
        self._segments = segments
        self._dns = dns
        self._counters = counters
        self._on_closed = on_closed
        self._headers: dict[tuple[bytes, int, int, int, int], bytes] = {}
        self._idle_timeout = idle_timeout
        self._last_used = now
        self._idle = wheel.timer(self._check_idle)
        self._idle.arm(now + idle_timeout)

    @property
    def key(self) -> tuple[bytes, int]:
        """Local address and port."""
        return self._local, self._port

    def datagram_arrived(
        self, packet: ip.IpPacket, port: int, payload: memoryview, segment_size: int, now: float
    ) -> None:
        """The host sent one datagram to ``port``, or several of ``segment_size`` bytes each."""
        self._last_used = now
        key = (packet.destination, port, packet.hop_limit, packet.traffic_class, segment_size)
        header = self._headers.get(key)
        if header is None:
            header = self._remember(key)
        if segment_size and (len(payload) > MAX_RUN_DATA or len(payload) > segment_size * MAX_RUN_SEGMENTS):
            step = segment_size * min(max(MAX_RUN_DATA // segment_size, 1), MAX_RUN_SEGMENTS)
            for start in range(0, len(payload), step):
                self.stream.send(header, payload[start : start + step])
        else:
            self.stream.send(header, payload)

    def close(self) -> None:
        """Forget the flow here and at the exit."""
        self._idle.cancel()
        self.stream.close()
        self._on_closed(self)

    # --- DatagramHandler -------------------------------------------------------------------------

    def run_received(self, data: memoryview, now: float) -> None:
        """Datagrams, or an ICMP error, from the Internet."""
        self._last_used = now
        try:
            run = decode_run(data)
        except WireError as error:
            self._counters.drop(error.reason)
            return
        if not isinstance(run, DataRun):
            quote = icmp_errors.quote_udp(self._port)
            if not icmp_errors.write_error(run, self._local, ip.PROTOCOL_UDP, quote, self._dns, self._write):
                self._counters.drop("udp-error-without-address")
            return
        source = run.address
        if isinstance(source, str):
            source = self._dns.address_of(source, 4 if len(self._local) == 4 else 6) or b""
        if len(source) != len(self._local):
            self._counters.drop("udp-wrong-family")
            return
        if not run.segment_size or self._segments:
            self._deliver(source, run.port, run.data, run.segment_size)
            return
        for start in range(0, len(run.data), run.segment_size):
            self._deliver(source, run.port, run.data[start : start + run.segment_size], 0)

    def refused(self, code: ResetCode, now: float) -> None:
        """The exit has no socket for the flow."""
        self._counters.drop("udp-refused")
        self.aborted(code, now)

    def aborted(self, code: ResetCode, now: float) -> None:
        """The exit has forgotten the flow, or the session is gone: the next datagram opens a new one."""
        self._idle.cancel()
        self._on_closed(self)

    # ---------------------------------------------------------------------------------------------

    def _deliver(self, source: bytes, port: int, data: Buffer, segment_size: int) -> None:
        header = udp.build(source, port, self._local, self._port, len(data), segment_size=segment_size)
        self._write((header, data))

    def _remember(self, key: tuple[bytes, int, int, int, int]) -> bytes:
        destination, port, hop_limit, traffic_class, segment_size = key
        header = encode_run_header(
            self._dns.name_of(destination) or destination,
            port,
            hop_limit=hop_limit,
            traffic_class=traffic_class,
            segment_size=segment_size,
        )
        if len(self._headers) >= MAX_RUN_HEADERS:
            self._headers.clear()
        self._headers[key] = header
        return header

    def _check_idle(self, now: float) -> None:
        deadline = self._last_used + self._idle_timeout
        if now < deadline:
            self._idle.arm(deadline)
        else:
            self._counters.count("udp-flows-idle")
            self.close()
