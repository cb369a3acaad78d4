"""The TCP flows of this host: find the endpoint of each segment, and open new flows."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import Final

from halftunnel_vpn.errors import SessionError, UpstreamUnavailable
from halftunnel_vpn.flow.dns_stream import DnsStream
from halftunnel_vpn.flow.flow_config import FlowConfig
from halftunnel_vpn.flow.flow_context import FlowContext
from halftunnel_vpn.flow.flow_ends import FlowEnds
from halftunnel_vpn.flow.interfaces import StreamHandler, StreamOpener, StreamPort
from halftunnel_vpn.flow.known_destinations import KnownDestinations
from halftunnel_vpn.flow.openings import Openings
from halftunnel_vpn.flow.tcp.congestion import UNLIMITED, NewReno
from halftunnel_vpn.flow.tcp.endpoint import ACK_DELAY, TcpEndpoint
from halftunnel_vpn.flow.tcp.lifecycle import TcpContext, TcpLifecycle
from halftunnel_vpn.flow.tcp.outgoing import answer_stray
from halftunnel_vpn.flow.tcp.tcp_states import TcpState
from halftunnel_vpn.flow.udp_flow import DNS_PORT
from halftunnel_vpn.icmp_error import IcmpErrorKind
from halftunnel_vpn.inet import icmp, ip, tcp
from halftunnel_vpn.protocol.stream_messages import MAX_HOP_LIMIT, OpenRequest, ResetCode, StreamKind

TcpKey = bytes
"""Source, destination, source port, destination port, as encoded in a packet."""

_UNREACHABLE: Final = {
    ResetCode.HOST_UNREACHABLE: IcmpErrorKind.HOST_UNREACHABLE,
    ResetCode.NETWORK_UNREACHABLE: IcmpErrorKind.NET_UNREACHABLE,
    ResetCode.TIMED_OUT: IcmpErrorKind.HOST_UNREACHABLE,
    ResetCode.NAME_NOT_FOUND: IcmpErrorKind.HOST_UNREACHABLE,
    ResetCode.DENIED: IcmpErrorKind.ADMIN_PROHIBITED,
    ResetCode.HOP_LIMIT_EXCEEDED: IcmpErrorKind.TIME_EXCEEDED,
}
"""Refusals that are reported to the host by ICMP. Every other one becomes an RST."""


class TcpFlows:
    """All TCP flows; the owner of their endpoints.

    ``random`` returns random bytes, ``clock`` the monotonic time in seconds.

    ``touched`` holds the flows whose acknowledgement is due. The tracker reads ``by_key`` and ``touched``
    directly.
    """

    def __init__(
        self,
        context: FlowContext,
        openings: Openings,
        opener: StreamOpener,
        config: FlowConfig,
    ) -> None:
        self._write = context.write
        self._dns = context.dns
        self._wheel = context.wheel
        self._counters = context.counters
        self._openings = openings
        self._opener = opener
        self._config = config
        self._clock = context.clock
        self._own = frozenset(config.addresses)
        self._resolvers = frozenset(config.resolvers)
        self._endpoints = TcpContext(
            config.tcp, context.write, context.wheel, context.counters, context.random
        )
        # The SYN of each flow whose destination the exit has not reached yet.
        self._syns: dict[TcpLifecycle, ip.IpPacket] = {}
        # Where a SYN is answered before the exit has connected.
        self._known = KnownDestinations()
        self.by_key: dict[TcpKey, TcpEndpoint] = {}
        self.touched: dict[TcpEndpoint, None] = {}
        # Flows whose acknowledgement waits for an answer to carry it.
        self._unanswered: dict[TcpEndpoint, None] = {}
        self._answer_timer = context.wheel.timer(self._answers_are_late)

    def flush(self, now: float) -> None:
        """End a batch of frames: each flow sends one acknowledgement, now or later."""
        for endpoint in self.touched:
            if endpoint.flush_or_wait(now):
                self._unanswered[endpoint] = None
                if not self._answer_timer.armed:
                    self._answer_timer.arm(now + ACK_DELAY)
        self.touched.clear()

    def abort_all(self, now: float) -> None:
        """End every flow with RST: the streams are lost."""
        for endpoint in list(self.by_key.values()):
            endpoint.abort(now)
        self.touched.clear()
        self._known.clear()

    def ends(self, limit: int) -> list[FlowEnds]:
        """Return the ends of at most ``limit`` flows, oldest first."""
        found = []
        for key in islice(self.by_key, limit):
            length = (len(key) - 4) // 2
            remote = key[length : 2 * length]
            ports = key[2 * length :]
            port, remote_port = int.from_bytes(ports[:2], "big"), int.from_bytes(ports[2:], "big")
            found.append(FlowEnds("tcp", key[:length], port, remote, remote_port, self._dns.name_of(remote)))
        return found

    def segment_arrived(self, packet: ip.IpPacket, frame: bytes, trusted: bool, now: float) -> None:
        """Handle one segment of the host. Raises PacketError."""
        segment = tcp.parse(packet, checksum_trusted=trusted)
        start = packet.header_length
        key = packet.source + packet.destination + bytes(packet.raw[start : start + 4])
        endpoint = self.by_key.get(key)
        if endpoint is not None and not (segment.flags & tcp.SYN and endpoint.may_be_replaced_by(segment)):
            if endpoint.segment_arrived(segment, now):
                self.touched[endpoint] = None
        elif segment.flags & (tcp.SYN | tcp.ACK | tcp.RST | tcp.FIN) == tcp.SYN:
            self._open(key, packet, segment, now)
        elif not segment.flags & tcp.RST:
            self._counters.drop("tcp-no-flow")
            back = tcp.HeaderTemplate(
                packet.destination, segment.destination_port, packet.source, segment.source_port
            )
            reset = answer_stray(segment, back)
            if reset is not None and self._openings.may_talk_to(packet.destination):
                self._write((reset,))

    def _open(self, key: TcpKey, packet: ip.IpPacket, syn: tcp.TcpSegment, now: float) -> None:
        if not self._openings.admits(packet, self.by_key, self._config.max_tcp_flows, "tcp"):
            return
        source, destination = packet.source, packet.destination
        source_port, destination_port = syn.source_port, syn.destination_port

        endpoint = TcpEndpoint(
            syn,
            tcp.HeaderTemplate(destination, destination_port, source, source_port),
            self._endpoints,
            self,
            congestion=UNLIMITED if source in self._own else NewReno(),
            now=now,
            key=key,
        )
        if destination_port == DNS_PORT and self._config.intercept_dns:
            self.by_key[key] = endpoint
            open_server = None if destination in self._resolvers else partial(self._open_dns, destination)
            endpoint.attach(
                DnsStream(endpoint, self._dns, self._counters, self._clock, self._wheel, source, open_server)
            )
            endpoint.opened(now)
            return
        host = self._dns.name_of(destination) or destination
        # The hop limit of a traceroute; an ordinary SYN has 64 or more.
        hop_limit = packet.hop_limit if packet.hop_limit <= MAX_HOP_LIMIT else 0
        request = OpenRequest(StreamKind.TCP, host, destination_port, 0, hop_limit)
        try:
            stream = self._opener.open_stream(request, endpoint, now)
        except SessionError:
            self._counters.drop("tcp-no-session")  # the host sends its SYN again
            return
        except UpstreamUnavailable:
            self._openings.refuse(packet, "tcp-path-lost")
            return
        self.by_key[key] = endpoint
        self._syns[endpoint] = packet
        # A traceroute has to see each hop's answer.
        is_known = self._config.answer_known_at_once and not hop_limit
        is_known = is_known and self._known.contains(destination, destination_port, now)
        if is_known:
            self._counters.count("tcp-answered-at-once")
        endpoint.attach(stream, answer_at_once=is_known)

    def _open_dns(self, destination: bytes, handler: StreamHandler, now: float) -> StreamPort:
        """Open a stream to the DNS server at ``destination``. Raises SessionError, UpstreamUnavailable."""
        host = self._dns.name_of(destination) or destination
        return self._opener.open_stream(OpenRequest(StreamKind.TCP, host, DNS_PORT, 0), handler, now)

    # --- calls of the endpoints (EndpointOwner) --------------------------------------------------

    def endpoint_closed(self, endpoint: TcpLifecycle) -> None:
        """Forget the flow."""
        assert isinstance(endpoint, TcpEndpoint)
        self._syns.pop(endpoint, None)
        self.touched.pop(endpoint, None)
        self._unanswered.pop(endpoint, None)
        if self.by_key.get(endpoint.key) is endpoint:
            del self.by_key[endpoint.key]

    def endpoint_dialed(self, endpoint: TcpLifecycle, is_connected: bool, now: float) -> None:
        """Remember what the next SYN to the same destination can expect."""
        key = endpoint.key
        length = (len(key) - 4) // 2
        destination, port = key[length : 2 * length], int.from_bytes(key[-2:], "big")
        if is_connected:
            self._syns.pop(endpoint, None)
            self._known.add(destination, port, now)
            return
        self._known.discard(destination, port)
        if endpoint.state is not TcpState.SYN_HELD:
            self._counters.count("tcp-answered-and-refused")

    def endpoint_refused(self, endpoint: TcpLifecycle, code: ResetCode, now: float) -> bool:
        """Return whether the refusal was reported to the host by ICMP, about the packet of its SYN."""
        kind = _UNREACHABLE.get(code)
        syn = self._syns.pop(endpoint, None)
        if kind is None or syn is None:
            return False
        # For an error that the exit found by itself the destination stands as the source.
        source = endpoint.offender if len(endpoint.offender) == len(syn.source) else syn.destination
        frame = icmp.build_error(syn, kind, source=source)
        if frame is None:
            return False
        self._write((frame,))
        return True

    # --- time ------------------------------------------------------------------------------------

    def _answers_are_late(self, now: float) -> None:
        """Send the acknowledgements that have waited long enough."""
        next_due = now + ACK_DELAY
        try:
            for endpoint in list(self._unanswered):
                due = endpoint.flush_late(now)
                if due is None:
                    self._unanswered.pop(endpoint, None)
                elif due < next_due:
                    next_due = due
        finally:  # also when one of them has raised: the others must still be sent
            if self._unanswered:
                self._answer_timer.arm(next_due)
