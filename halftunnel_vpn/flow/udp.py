"""UDP flows: one stream for one local endpoint, whatever it talks to (RFC 4787, REQ-1)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from halftunnel_vpn.flow.datagrams import MAX_RUN_DATA, DatagramFlow, Surroundings
from halftunnel_vpn.packet import ip, udp
from halftunnel_vpn.protocol.datagram import MAX_RUN_SEGMENTS, DataRun, encode_run_header
from halftunnel_vpn.protocol.wire import Buffer

MAX_RUN_HEADERS: Final = 64
"""Headers of runs that a flow remembers; nearly every flow talks to one destination only."""

_HEADER: Final = struct.Struct(">HHHH")


DNS_PORT: Final = 53
DNS_IDLE: Final = 17.0
"""Seconds for a flow that only asks DNS, a port for each question (RFC 4787, REQ-5 a, lets it have less)."""


class UdpFlow(DatagramFlow):
    """One local port."""

    __slots__ = ("_full_idle_timeout", "_headers", "_segments")

    label = "udp"

    def __init__(
        self,
        around: Surroundings,
        local: bytes,
        port: int,
        idle_timeout: float,
        on_closed: Callable[[DatagramFlow], None],
        now: float,
    ) -> None:
        super().__init__(around, local, port, min(idle_timeout, DNS_IDLE), on_closed, now)
        self._full_idle_timeout = idle_timeout
        self._segments = around.segments
        self._headers: dict[tuple[bytes, int, int, int, int], bytes] = {}

    def datagram_arrived(
        self, packet: ip.IpPacket, port: int, payload: memoryview, segment_size: int, now: float
    ) -> None:
        """The host sent one datagram to ``port``, or several of ``segment_size`` bytes each."""
        self._last_used = now
        key = (packet.destination, port, packet.hop_limit, packet.traffic_class, segment_size)
        header = self._headers.get(key)
        if header is None:
            header = self._remember(key)
        length = len(payload)
        if not segment_size:
            if length <= MAX_RUN_DATA:
                self.stream.send(header, payload)
            else:
                self._send(packet, header, payload)
            return
        step = segment_size * min(max(MAX_RUN_DATA // segment_size, 1), MAX_RUN_SEGMENTS)
        for start in range(0, length, step):
            self.stream.send(header, payload[start : start + step])

    def _remember(self, key: tuple[bytes, int, int, int, int]) -> bytes:
        destination, port, hop_limit, traffic_class, segment_size = key
        if port != DNS_PORT:
            self._idle_timeout = self._full_idle_timeout
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

    def _deliver(self, source: bytes, run: DataRun) -> None:
        size, data = run.segment_size, run.data
        if not size or self._segments:
            self._write_datagrams(source, run.port, data, size)
            return
        for start in range(0, len(data), size):
            self._write_datagrams(source, run.port, data[start : start + size], 0)

    def _write_datagrams(self, source: bytes, port: int, data: Buffer, segment_size: int) -> None:
        header = udp.build(source, port, self._local, self._number, len(data), segment_size=segment_size)
        self._write((header, data))

    def _quote(self, port: int) -> tuple[int, bytes]:
        return ip.PROTOCOL_UDP, _HEADER.pack(self._number, port, _HEADER.size, 0)
