"""ICMP flows: the echo requests of one identifier. They are carried to the destination."""

from __future__ import annotations

import struct
from typing import Final

from halftunnel_vpn.flow.datagrams import DatagramFlow
from halftunnel_vpn.inet import icmp, ip
from halftunnel_vpn.protocol.datagram import DataRun, encode_run_header

_HEADER: Final = struct.Struct(">BBHHH")
_ECHO_REQUEST: Final = {4: 8, 6: 128}
_PROTOCOL: Final = {4: ip.PROTOCOL_ICMP, 6: ip.PROTOCOL_ICMPV6}


class IcmpFlow(DatagramFlow):
    """The echo requests of one program. The port field of a run carries the sequence number of the echo."""

    __slots__ = ()

    label = "icmp"

    def echo_arrived(self, packet: ip.IpPacket, echo: icmp.Echo, now: float) -> None:
        """Send an echo request of the host to the exit."""
        self._last_used = now
        self._sends_to(packet.destination)
        header = encode_run_header(
            packet.destination,
            echo.sequence,
            hop_limit=packet.hop_limit,
            traffic_class=packet.traffic_class,
        )
        self._send(packet, header, echo.payload)

    def _deliver(self, source: bytes, run: DataRun) -> None:
        self._write(icmp.build_echo_reply(source, self._local, self._number, run.port, run.data))

    def _quote(self, port: int) -> tuple[int, bytes]:
        version = self._version
        return _PROTOCOL[version], _HEADER.pack(_ECHO_REQUEST[version], 0, 0, self._number, port)
