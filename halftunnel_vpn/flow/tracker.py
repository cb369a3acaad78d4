"""The flow tracker: every IP packet that the host sends into the TUN device finds its flow here."""

from __future__ import annotations

from collections.abc import Callable, Sized
from dataclasses import dataclass
from functools import partial
from typing import Final

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import PacketError, SessionError, UpstreamUnavailable, WireError
from halftunnel_vpn.flow.config import FlowConfig
from halftunnel_vpn.flow.datagrams import DatagramFlow, FlowContext
from halftunnel_vpn.flow.dns_stream import DnsStream
from halftunnel_vpn.flow.icmp import IcmpFlow
from halftunnel_vpn.flow.interfaces import (
    DnsOutcome,
    DnsPort,
    FrameWriter,
    OpenRun,
    StreamHandler,
    StreamOpener,
    StreamPort,
)
from halftunnel_vpn.flow.tcp.congestion import UNLIMITED, NewReno
from halftunnel_vpn.flow.tcp.endpoint import ACK_DELAY, TcpEndpoint
from halftunnel_vpn.flow.tcp.fast_path import read as read_plain
from halftunnel_vpn.flow.tcp.outgoing import answer_stray
from halftunnel_vpn.flow.udp import DNS_PORT, UdpFlow, UdpPath
from halftunnel_vpn.flow.udp_runs import MAX_PATHS, MIN_V4, key_of
from halftunnel_vpn.icmp_error import IcmpErrorKind
from halftunnel_vpn.inet import icmp, ip, tcp, udp, vnet
from halftunnel_vpn.inet.fragments import Reassembler
from halftunnel_vpn.inet.special_purpose import SourceFilter
from halftunnel_vpn.protocol.stream_messages import MAX_HOP_LIMIT, OpenRequest, ResetCode, StreamKind
from halftunnel_vpn.timers import Wheel

TcpKey = bytes
"""Source, destination, source port, destination port, as they stand in a packet."""

_UNREACHABLE: Final = {
    ResetCode.HOST_UNREACHABLE: IcmpErrorKind.HOST_UNREACHABLE,
    ResetCode.NETWORK_UNREACHABLE: IcmpErrorKind.NET_UNREACHABLE,
    ResetCode.TIMED_OUT: IcmpErrorKind.HOST_UNREACHABLE,
    ResetCode.NAME_NOT_FOUND: IcmpErrorKind.HOST_UNREACHABLE,
    ResetCode.DENIED: IcmpErrorKind.ADMIN_PROHIBITED,
    ResetCode.HOP_LIMIT_EXCEEDED: IcmpErrorKind.TIME_EXCEEDED,
}
"""Refusals that the host is told by ICMP; every other one is an RST."""


@dataclass(frozen=True, slots=True)
class FlowCounts:
    """Flows that are open now."""

    tcp: int
    udp: int
    icmp: int


class FlowTracker:
    """Maps flows to streams. ``write`` puts frames on the TUN device, ``opener`` opens streams to the exit.

    ``segments`` tells whether the device takes several UDP datagrams in one frame. ``random`` gives so many
    random bytes, ``clock`` the monotonic time. Nothing that the host sends makes this raise: what is
    malformed or has no place is dropped and counted.
    """

    def __init__(
        self,
        write: FrameWriter,
        opener: StreamOpener,
        dns: DnsPort,
        config: FlowConfig,
        *,
        segments: bool,
        wheel: Wheel,
        random: Callable[[int], bytes],
        clock: Callable[[], float],
        counters: Counters,
        give_way: Callable[[], None] = lambda: None,
    ) -> None:
        self._write = write
        self._opener = opener
        self._dns = dns
        self._config = config
        self._open_runs: list[OpenRun] = []
        self._around = FlowContext(
            write, dns, segments, wheel, counters, self._open_runs, give_way, SourceFilter()
        )
        self._wheel = wheel
        self._random = random
        self._clock = clock
        self._counters = counters
        self._own = frozenset(config.addresses)
        self._resolvers = frozenset(config.resolvers)
        self._reassembler = Reassembler(counters)
        self._fragment_timer = wheel.timer(self._expire_fragments)
        self._tcp: dict[TcpKey, TcpEndpoint] = {}
        self._touched: dict[TcpEndpoint, None] = {}
        self._unanswered: dict[TcpEndpoint, None] = {}
        self._answer_timer = wheel.timer(self._answers_are_late)
        self._udp: dict[tuple[bytes, int], UdpFlow] = {}
        self._udp_paths: dict[bytes, UdpPath] = {}
        self._icmp: dict[tuple[bytes, int], IcmpFlow] = {}
        self._handlers = {
            ip.PROTOCOL_TCP: self._tcp_arrived,
            ip.PROTOCOL_UDP: self._udp_arrived,
            ip.PROTOCOL_ICMP: self._icmp_arrived,
            ip.PROTOCOL_ICMPV6: self._icmp_arrived,
        }

    @property
    def counts(self) -> FlowCounts:
        """How many flows there are."""
        return FlowCounts(len(self._tcp), len(self._udp), len(self._icmp))

    def frame_arrived(self, frame: bytes, now: float) -> None:
        """The host sent ``frame``: a vnet header and an IP packet. Call :meth:`flush` after a batch."""
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
        """End of a batch of frames: runs of datagrams leave, and one acknowledgement for each TCP flow."""
        if self._open_runs:
            for flow in self._open_runs:
                flow.flush()
            self._open_runs.clear()
        for endpoint in self._touched:
            if endpoint.flush_or_wait(now):
                self._unanswered[endpoint] = None
                if not self._answer_timer.armed:
                    self._answer_timer.arm(now + ACK_DELAY)
        self._touched.clear()

    def session_lost(self, now: float) -> None:
        """The streams are gone: every TCP flow ends with RST, the others begin anew with the next packet."""
        for endpoint in list(self._tcp.values()):
            endpoint.abort(now)
        for flow in (*self._udp.values(), *self._icmp.values()):
            flow.aborted(ResetCode.SHUTDOWN, now)
        self._touched.clear()

    # --- TCP -------------------------------------------------------------------------------------

    def _tcp_arrived(self, packet: ip.IpPacket, frame: bytes, trusted: bool, now: float) -> None:
        segment = tcp.parse(packet, checksum_trusted=trusted)
        start = packet.header_length
        key = packet.source + packet.destination + bytes(packet.raw[start : start + 4])
        endpoint = self._tcp.get(key)
        if endpoint is not None and not (segment.flags & tcp.SYN and endpoint.may_be_replaced_by(segment)):
            if endpoint.segment_arrived(segment, now):
                self._touched[endpoint] = None
        elif segment.flags & (tcp.SYN | tcp.ACK | tcp.RST | tcp.FIN) == tcp.SYN:
            self._open_tcp(key, packet, segment, now)
        elif not segment.flags & tcp.RST:
            self._counters.drop("tcp-no-flow")
            back = tcp.HeaderTemplate(
                packet.destination, segment.destination_port, packet.source, segment.source_port
            )
            reset = answer_stray(segment, back)
            if reset is not None and self._may_talk_to(packet.destination):
                self._write((reset,))

    def _open_tcp(self, key: TcpKey, packet: ip.IpPacket, syn: tcp.TcpSegment, now: float) -> None:
        if not self._admits(packet, self._tcp, self._config.max_tcp_flows, "tcp"):
            return
        source, destination = packet.source, packet.destination
        source_port, destination_port = syn.source_port, syn.destination_port

        endpoint = TcpEndpoint(
            syn,
            tcp.HeaderTemplate(destination, destination_port, source, source_port),
            initial_sequence=int.from_bytes(self._random(4), "big"),
            config=self._config.tcp,
            write=self._write,
            wheel=self._wheel,
            counters=self._counters,
            on_closed=self._tcp_closed,
            on_refused=partial(self._refused, packet),
            congestion=UNLIMITED if source in self._own else NewReno(),
            now=now,
            key=key,
        )
        if destination_port == DNS_PORT and self._config.intercept_dns:
            self._tcp[key] = endpoint
            open_server = None if destination in self._resolvers else partial(self._open_dns, destination)
            endpoint.attach(
                DnsStream(endpoint, self._dns, self._counters, self._clock, self._wheel, source, open_server)
            )
            endpoint.opened(now)
            return
        host = self._dns.name_of(destination) or destination
        # A traceroute's: an ordinary SYN has 64 or more.
        hop_limit = packet.hop_limit if packet.hop_limit <= MAX_HOP_LIMIT else 0
        request = OpenRequest(StreamKind.TCP, host, destination_port, 0, hop_limit)
        try:
            stream = self._opener.open_stream(request, endpoint, now)
        except SessionError:
            self._counters.drop("tcp-no-session")  # the host sends its SYN again
            return
        except UpstreamUnavailable:
            self._refuse(packet, "tcp-road-lost")
            return
        self._tcp[key] = endpoint
        endpoint.attach(stream)

    def _open_dns(self, destination: bytes, handler: StreamHandler, now: float) -> StreamPort:
        """Open a stream to the DNS server at ``destination``. Raises SessionError, UpstreamUnavailable."""
        host = self._dns.name_of(destination) or destination
        return self._opener.open_stream(OpenRequest(StreamKind.TCP, host, DNS_PORT, 0), handler, now)

    def _tcp_closed(self, endpoint: TcpEndpoint) -> None:
        self._touched.pop(endpoint, None)
        self._unanswered.pop(endpoint, None)
        if self._tcp.get(endpoint.key) is endpoint:
            del self._tcp[endpoint.key]

    def _refused(self, syn: ip.IpPacket, endpoint: TcpEndpoint, code: ResetCode, now: float) -> bool:
        """The exit cannot connect: whether the host is told by ICMP, about the packet of its ``syn``."""
        kind = _UNREACHABLE.get(code)
        if kind is None:
            return False
        # Of an error that the exit met by itself the destination seems to tell.
        source = endpoint.offender if len(endpoint.offender) == len(syn.source) else syn.destination
        frame = icmp.build_error(syn, kind, source=source)
        if frame is None:
            return False
        self._write((frame,))
        return True

    # --- UDP -------------------------------------------------------------------------------------

    def _udp_arrived(self, packet: ip.IpPacket, frame: bytes, trusted: bool, now: float) -> None:
        datagram = udp.parse(packet, checksum_trusted=trusted)
        if datagram.destination_port == DNS_PORT and self._config.intercept_dns:
            self._dns_arrived(packet, datagram, frame, now)
            return
        flow = self._udp.get((packet.source, datagram.source_port))
        if flow is None:
            flow = self._open_udp(packet, datagram.source_port, now)
            if flow is None:
                return
        segment_size = 0
        key = key_of(frame) if packet.raw.obj is frame and trusted else None
        if key is not None:
            path = flow.path_of(packet, datagram, frame)
            if path is not None:
                if len(self._udp_paths) >= MAX_PATHS:
                    self._udp_paths.clear()
                self._udp_paths[key] = path
                flow.frame_arrived(path, frame, now)
                return
        if frame[1]:
            header = vnet.parse(frame)
            segment_size = header.gso_size if header.gso_type == vnet.GSO_UDP_L4 else 0
        flow.datagram_arrived(packet, datagram.destination_port, datagram.payload, segment_size, now)

    def _open_udp(self, packet: ip.IpPacket, port: int, now: float) -> UdpFlow | None:
        if not self._admits(packet, self._udp, self._config.max_udp_flows, UdpFlow.label):
            return None
        flow = UdpFlow(self._around, packet.source, port, self._config.udp_idle, self._udp_closed, now)
        if not self._connect(flow, StreamKind.UDP, packet, now):
            return None
        self._udp[flow.key] = flow
        return flow

    def _dns_arrived(self, packet: ip.IpPacket, datagram: udp.UdpDatagram, frame: bytes, now: float) -> None:
        """A DNS query, or several of one size in one frame."""
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
            flow = self._udp.get((source, port)) or self._open_udp(packet, port, now)
            if flow is not None:
                flow.datagram_arrived(packet, DNS_PORT, message, 0, now)

    # --- ICMP and everything else ----------------------------------------------------------------

    def _icmp_arrived(self, packet: ip.IpPacket, frame: bytes, trusted: bool, now: float) -> None:
        echo = icmp.parse(packet, checksum_trusted=trusted)
        if self._dns.name_of(packet.destination) is not None:
            # a fake address stands for a name: only the exit knows what would answer, so we do
            reply = icmp.build_echo_reply(
                packet.destination, packet.source, echo.identifier, echo.sequence, echo.payload
            )
            self._write(reply)
            return
        flow = self._icmp.get((packet.source, echo.identifier))
        if flow is None:
            flow = self._open_icmp(packet, echo.identifier, now)
            if flow is None:
                return
        flow.echo_arrived(packet, echo, now)

    def _open_icmp(self, packet: ip.IpPacket, identifier: int, now: float) -> IcmpFlow | None:
        if not self._admits(packet, self._icmp, self._config.max_icmp_flows, IcmpFlow.label):
            return None
        idle_timeout = self._config.icmp_idle
        flow = IcmpFlow(self._around, packet.source, identifier, idle_timeout, self._icmp_closed, now)
        if not self._connect(flow, StreamKind.ICMP, packet, now):
            return None
        self._icmp[flow.key] = flow
        return flow

    def _other_arrived(self, packet: ip.IpPacket, frame: bytes, trusted: bool, now: float) -> None:
        self._counters.drop("ip-protocol-unreachable")
        error = icmp.build_error(packet, IcmpErrorKind.PROTOCOL_UNREACHABLE, source=packet.destination)
        if error is not None:
            self._write((error,))

    # --- what flows have in common ---------------------------------------------------------------

    def _admits(self, packet: ip.IpPacket, flows: Sized, maximum: int, label: str) -> bool:
        """Whether ``packet`` may begin a flow."""
        if not self._may_talk_to(packet.destination):
            self._counters.drop(f"{label}-to-many")
            return False
        if len(flows) >= maximum:
            self._counters.drop(f"{label}-too-many-flows")
            return False
        return True

    def _connect(self, flow: DatagramFlow, kind: StreamKind, packet: ip.IpPacket, now: float) -> bool:
        """Give ``flow`` its stream; False when there is no session for it."""
        try:
            flow.stream = self._opener.open_datagrams(OpenRequest(kind, b"", 0, 0), flow, now)
        except SessionError:
            self._counters.drop(f"{flow.label}-no-session")
            flow.aborted(ResetCode.SHUTDOWN, now)
            return False
        except UpstreamUnavailable:
            self._refuse(packet, f"{flow.label}-road-lost")
            flow.aborted(ResetCode.SHUTDOWN, now)
            return False
        return True

    def _refuse(self, packet: ip.IpPacket, reason: str) -> None:
        """No road leads to the exit: the host hears of it at once."""
        self._counters.drop(reason)
        frame = icmp.build_error(packet, IcmpErrorKind.NET_UNREACHABLE, source=packet.destination)
        if frame is not None:
            self._write((frame,))

    def _udp_closed(self, flow: DatagramFlow) -> None:
        self._udp.pop(flow.key, None)

    def _icmp_closed(self, flow: DatagramFlow) -> None:
        self._icmp.pop(flow.key, None)

    def _may_talk_to(self, destination: bytes) -> bool:
        """Whether ``destination`` is one host, and not this one: the tunnel carries no multicast."""
        if len(destination) == 4:
            return destination[0] < 224 and destination not in self._own
        return destination[0] != 0xFF and destination[:2] != b"\xfe\x80" and destination not in self._own

    def _answers_are_late(self, now: float) -> None:
        """Some acknowledgements have waited long enough; the others go on waiting."""
        next_due = now + ACK_DELAY
        try:
            for endpoint in list(self._unanswered):
                due = endpoint.flush_late(now)
                if due is None:
                    self._unanswered.pop(endpoint, None)
                elif due < next_due:
                    next_due = due
        finally:  # also when one of them has raised: the others still wait
            if self._unanswered:
                self._answer_timer.arm(next_due)

    def _expire_fragments(self, now: float) -> None:
        self._reassembler.expire(now)
        if self._reassembler.next_deadline is not None:
            self._fragment_timer.arm(self._reassembler.next_deadline)
