"""The flow tracker: it finds the flow of every IP packet that the host sends to the TUN device."""

from __future__ import annotations

from dataclasses import dataclass

from halftunnel_vpn.errors import PacketError, WireError
from halftunnel_vpn.flow.flow_config import FlowConfig
from halftunnel_vpn.flow.flow_context import FlowContext
from halftunnel_vpn.flow.flow_ends import FlowEnds
from halftunnel_vpn.flow.icmp_flows import IcmpFlows
from halftunnel_vpn.flow.interfaces import (
    StreamOpener,
)
from halftunnel_vpn.flow.openings import Openings
from halftunnel_vpn.flow.tcp.fast_path import read as read_plain
from halftunnel_vpn.flow.tcp_flows import TcpFlows
from halftunnel_vpn.flow.udp_flows import UdpFlows
from halftunnel_vpn.flow.udp_runs import MIN_V4, key_of
from halftunnel_vpn.icmp_error import IcmpErrorKind
from halftunnel_vpn.inet import icmp, ip, vnet
from halftunnel_vpn.inet.fragments import Reassembler


@dataclass(frozen=True, slots=True)
class FlowCounts:
    """The numbers of open flows."""

    tcp: int
    udp: int
    icmp: int


class FlowTracker:
    """Maps flows to streams that ``opener`` opens to the exit.

    No packet of the host makes the tracker raise: a packet that is malformed or has no flow is dropped and
    counted.
    """

    def __init__(self, context: FlowContext, opener: StreamOpener, config: FlowConfig) -> None:
        # Writes frames to the TUN device.
        self._write = context.write
        self._counters = context.counters
        # Flows whose datagrams are sent at the end of the batch.
        self._open_runs = context.open_runs
        openings = Openings(context.write, opener, frozenset(config.addresses), context.counters)
        self._tcp_flows = TcpFlows(context, openings, opener, config)
        self._udp_flows = UdpFlows(context, openings, config)
        self._icmp_flows = IcmpFlows(context, openings, config)
        # Looked up for every frame.
        self._tcp = self._tcp_flows.by_key
        self._touched = self._tcp_flows.touched
        self._udp_paths = self._udp_flows.paths
        # Joins the fragments of packets; the timer discards those whose rest does not come.
        self._reassembler = Reassembler(context.counters)
        self._fragment_timer = context.wheel.timer(self._expire_fragments)
        # What handles a packet, by its protocol.
        self._handlers = {
            ip.PROTOCOL_TCP: self._tcp_flows.segment_arrived,
            ip.PROTOCOL_UDP: self._udp_flows.datagram_arrived,
            ip.PROTOCOL_ICMP: self._icmp_flows.message_arrived,
            ip.PROTOCOL_ICMPV6: self._icmp_flows.message_arrived,
        }

    @property
    def counts(self) -> FlowCounts:
        """The numbers of open flows."""
        return FlowCounts(len(self._tcp), len(self._udp_flows), len(self._icmp_flows))

    def ends(self, limit: int) -> list[FlowEnds]:
        """Return the ends of at most ``limit`` open flows: TCP first, then UDP and ICMP."""
        found = self._tcp_flows.ends(limit)
        found += self._udp_flows.ends(limit - len(found))
        return found + self._icmp_flows.ends(limit - len(found))

    def frame_arrived(self, frame: bytes, now: float) -> None:
        """Handle a frame of the host: a vnet header and an IP packet. Call :meth:`flush` after a batch."""
        if len(frame) >= MIN_V4 and (frame[19] == ip.PROTOCOL_UDP or frame[16] == ip.PROTOCOL_UDP):
            key = key_of(frame)
            path = self._udp_paths.get(key) if key is not None else None
            if path is not None and path.fits(frame) and not path.flow.is_over:
                path.flow.frame_arrived(path, frame, now)
                return
        plain = read_plain(frame)
        if plain is not None:
            key, sequence, acknowledgement, window, text = plain
            endpoint = self._tcp.get(key)
            if endpoint is not None:
                is_due = endpoint.plain_arrived(sequence, acknowledgement, window, text, now)
                if is_due is not None:
                    if is_due:
                        self._touched[endpoint] = None
                    return
        try:
            trusted = frame[0] & vnet.CHECKSUM_TRUSTED != 0 if frame else False
            packet: ip.IpPacket | None = ip.parse(memoryview(frame)[vnet.VNET_HEADER_LENGTH :])
            assert packet is not None
            if packet.fragment is not None:
                packet = self._reassembler.add(packet, now)
                trusted = False
                if not self._fragment_timer.armed and self._reassembler.next_deadline is not None:
                    self._fragment_timer.arm(self._reassembler.next_deadline)
                if packet is None:
                    return
            handler = self._handlers.get(packet.protocol, self._other_arrived)
            handler(packet, frame, trusted, now)
        except (PacketError, WireError) as error:  # WireError: a name that the wire cannot carry
            self._counters.drop(error.reason)

    def flush(self, now: float) -> None:
        """End a batch of frames: send the runs of datagrams, and one acknowledgement for each TCP flow."""
        if self._open_runs:
            for flow in self._open_runs:
                flow.flush()
            self._open_runs.clear()
        if self._touched:
            self._tcp_flows.flush(now)

    def session_lost(self, now: float) -> None:
        """End all flows: the streams are lost. TCP flows end with RST; others reopen with the next packet."""
        self._tcp_flows.abort_all(now)
        self._udp_flows.abort_all(now)
        self._icmp_flows.abort_all(now)

    def _other_arrived(self, packet: ip.IpPacket, frame: bytes, trusted: bool, now: float) -> None:
        self._counters.drop("ip-protocol-unreachable")
        error = icmp.build_error(packet, IcmpErrorKind.PROTOCOL_UNREACHABLE, source=packet.destination)
        if error is not None:
            self._write((error,))

    def _expire_fragments(self, now: float) -> None:
        self._reassembler.expire(now)
        if self._reassembler.next_deadline is not None:
            self._fragment_timer.arm(self._reassembler.next_deadline)
