"""Decides whether a packet may begin a flow, and gives datagram flows their streams."""

from __future__ import annotations

from collections.abc import Sized

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import SessionError, UpstreamUnavailable
from halftunnel_vpn.flow.datagrams import DatagramFlow
from halftunnel_vpn.flow.interfaces import FrameWriter, StreamOpener
from halftunnel_vpn.icmp_error import IcmpErrorKind
from halftunnel_vpn.inet import icmp, ip
from halftunnel_vpn.protocol.stream_messages import OpenRequest, ResetCode, StreamKind


class Openings:
    """``own`` are the addresses of this host. No flow may have one of them as its destination."""

    def __init__(
        self, write: FrameWriter, opener: StreamOpener, own: frozenset[bytes], counters: Counters
    ) -> None:
        self._write = write
        self._opener = opener
        self._own = own
        self._counters = counters

    def admits(self, packet: ip.IpPacket, flows: Sized, maximum: int, label: str) -> bool:
        """Return whether ``packet`` may begin a flow; count the reason if it may not."""
        if not self.may_talk_to(packet.destination):
            self._counters.drop(f"{label}-to-many")
            return False
        if len(flows) >= maximum:
            self._counters.drop(f"{label}-too-many-flows")
            return False
        return True

    def connect(self, flow: DatagramFlow, kind: StreamKind, packet: ip.IpPacket, now: float) -> bool:
        """Open the stream of ``flow``; return False when there is no session for it."""
        try:
            flow.stream = self._opener.open_datagrams(OpenRequest(kind, b"", 0, 0), flow, now)
        except SessionError:
            self._counters.drop(f"{flow.label}-no-session")
            flow.aborted(ResetCode.SHUTDOWN, now)
            return False
        except UpstreamUnavailable:
            self.refuse(packet, f"{flow.label}-path-lost")
            flow.aborted(ResetCode.SHUTDOWN, now)
            return False
        return True

    def refuse(self, packet: ip.IpPacket, reason: str) -> None:
        """Report to the host by an ICMP error that no path leads to the exit."""
        self._counters.drop(reason)
        frame = icmp.build_error(packet, IcmpErrorKind.NET_UNREACHABLE, source=packet.destination)
        if frame is not None:
            self._write((frame,))

    def may_talk_to(self, destination: bytes) -> bool:
        """Return whether ``destination`` is another unicast host. The tunnel carries no multicast."""
        if len(destination) == 4:
            return destination[0] < 224 and destination not in self._own
        return destination[0] != 0xFF and destination[:2] != b"\xfe\x80" and destination not in self._own
