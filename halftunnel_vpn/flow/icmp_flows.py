"""The ICMP echo flows of this host."""

from __future__ import annotations

from itertools import islice

from halftunnel_vpn.flow.datagrams import DatagramFlow
from halftunnel_vpn.flow.flow_config import FlowConfig
from halftunnel_vpn.flow.flow_context import FlowContext
from halftunnel_vpn.flow.flow_ends import FlowEnds
from halftunnel_vpn.flow.icmp_flow import IcmpFlow
from halftunnel_vpn.flow.openings import Openings
from halftunnel_vpn.inet import icmp, ip
from halftunnel_vpn.protocol.stream_messages import ResetCode, StreamKind


class IcmpFlows:
    """All ICMP flows, one for each source address and identifier."""

    def __init__(self, context: FlowContext, openings: Openings, config: FlowConfig) -> None:
        self._context = context
        self._write = context.write
        self._dns = context.dns
        self._openings = openings
        self._config = config
        self._flows: dict[tuple[bytes, int], IcmpFlow] = {}

    def __len__(self) -> int:
        return len(self._flows)

    def ends(self, limit: int) -> list[FlowEnds]:
        """Return the local ends of at most ``limit`` flows, oldest first."""
        return [FlowEnds("icmp", *key) for key in islice(self._flows, limit)]

    def abort_all(self, now: float) -> None:
        """End every flow: the streams are lost. The next packet of each opens a new flow."""
        for flow in list(self._flows.values()):
            flow.aborted(ResetCode.SHUTDOWN, now)

    def message_arrived(self, packet: ip.IpPacket, frame: bytes, trusted: bool, now: float) -> None:
        """Handle one ICMP message of the host. Raises PacketError."""
        echo = icmp.parse(packet, checksum_trusted=trusted)
        if self._dns.name_of(packet.destination) is not None:
            # A fake address stands for a name. Only the exit knows the host of that name, so we answer
            # ourselves.
            reply = icmp.build_echo_reply(
                packet.destination, packet.source, echo.identifier, echo.sequence, echo.payload
            )
            self._write(reply)
            return
        flow = self._flows.get((packet.source, echo.identifier))
        if flow is None:
            flow = self._open(packet, echo.identifier, now)
            if flow is None:
                return
        flow.echo_arrived(packet, echo, now)

    def _open(self, packet: ip.IpPacket, identifier: int, now: float) -> IcmpFlow | None:
        if not self._openings.admits(packet, self._flows, self._config.max_icmp_flows, IcmpFlow.label):
            return None
        idle_timeout = self._config.icmp_idle
        flow = IcmpFlow(self._context, packet.source, identifier, idle_timeout, self._closed, now)
        if not self._openings.connect(flow, StreamKind.ICMP, packet, now):
            return None
        self._flows[flow.key] = flow
        return flow

    def _closed(self, flow: DatagramFlow) -> None:
        self._flows.pop(flow.key, None)
