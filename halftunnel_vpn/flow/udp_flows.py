"""The UDP flows of this host, and its DNS queries over UDP."""

from __future__ import annotations

from itertools import islice

from halftunnel_vpn.flow.datagrams import DatagramFlow
from halftunnel_vpn.flow.flow_config import FlowConfig
from halftunnel_vpn.flow.flow_context import FlowContext
from halftunnel_vpn.flow.flow_ends import FlowEnds
from halftunnel_vpn.flow.interfaces import DnsOutcome
from halftunnel_vpn.flow.openings import Openings
from halftunnel_vpn.flow.udp_flow import DNS_PORT, UdpFlow, UdpPath
from halftunnel_vpn.flow.udp_runs import MAX_PATHS, key_of
from halftunnel_vpn.inet import ip, udp, vnet
from halftunnel_vpn.protocol.stream_messages import ResetCode, StreamKind


class UdpFlows:
    """All UDP flows. ``paths``, which the tracker reads directly, are those of repeated frames."""

    def __init__(self, context: FlowContext, openings: Openings, config: FlowConfig) -> None:
        self._context = context
        self._write = context.write
        self._dns = context.dns
        self._openings = openings
        self._config = config
        self._resolvers = frozenset(config.resolvers)
        self._flows: dict[tuple[bytes, int], UdpFlow] = {}
        self.paths: dict[bytes, UdpPath] = {}

    def __len__(self) -> int:
        return len(self._flows)

    def ends(self, limit: int) -> list[FlowEnds]:
        """Return the local ends of at most ``limit`` flows, oldest first."""
        return [FlowEnds("udp", *key) for key in islice(self._flows, limit)]

    def abort_all(self, now: float) -> None:
        """End every flow: the streams are lost. The next packet of each opens a new flow."""
        for flow in list(self._flows.values()):
            flow.aborted(ResetCode.SHUTDOWN, now)

    def datagram_arrived(self, packet: ip.IpPacket, frame: bytes, trusted: bool, now: float) -> None:
        """Handle one frame with one or more datagrams of the host. Raises PacketError."""
        datagram = udp.parse(packet, checksum_trusted=trusted)
        if datagram.destination_port == DNS_PORT and self._config.intercept_dns:
            self._dns_arrived(packet, datagram, frame, now)
            return
        flow = self._flows.get((packet.source, datagram.source_port))
        if flow is None:
            flow = self._open(packet, datagram.source_port, now)
            if flow is None:
                return
        segment_size = 0
        key = key_of(frame) if packet.raw.obj is frame and trusted else None
        if key is not None:
            path = flow.path_of(packet, datagram, frame)
            if path is not None:
                if len(self.paths) >= MAX_PATHS:
                    self.paths.clear()
                self.paths[key] = path
                flow.frame_arrived(path, frame, now)
                return
        if frame[1]:
            header = vnet.parse(frame)
            segment_size = header.gso_size if header.gso_type == vnet.GSO_UDP_L4 else 0
        flow.datagram_arrived(packet, datagram.destination_port, datagram.payload, segment_size, now)

    def _open(self, packet: ip.IpPacket, port: int, now: float) -> UdpFlow | None:
        if not self._openings.admits(packet, self._flows, self._config.max_udp_flows, UdpFlow.label):
            return None
        flow = UdpFlow(self._context, packet.source, port, self._config.udp_idle, self._closed, now)
        if not self._openings.connect(flow, StreamKind.UDP, packet, now):
            return None
        self._flows[flow.key] = flow
        return flow

    def _dns_arrived(self, packet: ip.IpPacket, datagram: udp.UdpDatagram, frame: bytes, now: float) -> None:
        """Handle a DNS query, or several of one size in one frame."""
        payload = datagram.payload
        size = max(len(payload), 1)
        if frame[1] and packet.raw.obj is frame:
            header = vnet.parse(frame)
            if header.gso_type == vnet.GSO_UDP_L4 and header.gso_size:
                size = header.gso_size
        for start in range(0, max(len(payload), 1), size):
            self._ask_dns(packet, datagram.source_port, payload[start : start + size], now)

    def _ask_dns(self, packet: ip.IpPacket, port: int, message: memoryview, now: float) -> None:
        source, destination = packet.source, packet.destination

        def reply(answer: bytes) -> None:
            self._write((udp.build(destination, DNS_PORT, source, port, len(answer)), answer))

        outcome = self._dns.query(
            bytes(message),
            reply,
            stream=False,
            client=source,
            names_server=destination not in self._resolvers,
        )
        if outcome is DnsOutcome.FOR_SERVER:
            flow = self._flows.get((source, port)) or self._open(packet, port, now)
            if flow is not None:
                flow.datagram_arrived(packet, DNS_PORT, message, 0, now)

    def _closed(self, flow: DatagramFlow) -> None:
        self._flows.pop(flow.key, None)
