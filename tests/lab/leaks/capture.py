"""What came out of the client's links, as the other ends saw it (tcpdump, pcap-savefile(5))."""

from __future__ import annotations

import ipaddress
import signal
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from halftunnel_vpn.errors import HostError
from lab.leaks.traffic import FORGED_PORT
from lab.several_exits import WAY_ADDRESSES
from lab.topology import (
    DOMAIN_A,
    EXIT,
    EXIT_A,
    EXIT_A6,
    EXIT_B,
    EXIT_B6,
    LAN,
    LAN_LINK,
    OUTSIDE,
    OUTSIDE6,
    ROAD_A,
    ROAD_B,
    Lab,
)
from lab.tunnel import ROAD_PORT

ENDS: Final = ((EXIT, ROAD_A), (EXIT, ROAD_B), (LAN, LAN_LINK))
"""Every wire that leads out of the client, at its far end: no rule of the client's is behind it."""

LEG_PORTS: Final = range(ROAD_PORT, ROAD_PORT + 3)
"""Ports of the exits on the two roads: one, or three."""

START_TIMEOUT: Final = 60.0
"""Seconds until tcpdump must be listening."""

SNAPSHOT: Final = 128
"""Bytes kept of each packet: its headers."""

MAX_EXAMPLES: Final = 20
"""Leaked packets that are described one by one."""

PROBE_PORT: Final = 80
"""TCP port on which the client asks a road's host whether there is a captive portal."""

UNFILTERED: Final = "to groups and neighbours, while somebody had taken the packet filter away"
FORGED: Final = "with a mark that its program forged, while somebody had taken the packet filter away"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_MAGIC: Final = 0xA1B2C3D4
_ETHERNET: Final = 1
_IPV4, _IPV6, _ARP = 0x0800, 0x86DD, 0x0806
_ICMP, _TCP, _UDP, _FRAGMENT, _HOP_BY_HOP, _ICMPV6 = 1, 6, 17, 44, 0, 58
_NEIGHBOUR_TYPES: Final = frozenset((133, 134, 135, 136))  # RFC 4861
_ROAD_NAME: Final = b"".join(bytes((len(label),)) + label.encode() for label in DOMAIN_A.split(".")[1:])
_SYN, _ACK = 0x02, 0x10
_ECHO_REPLIES: Final = {_ICMP: (8, 0), _ICMPV6: (128, 129)}  # request and reply: RFC 792, RFC 4443
_ROADS: Final = frozenset(
    ipaddress.ip_address(text).packed for text in (EXIT_A, EXIT_A6, EXIT_B, EXIT_B6, *WAY_ADDRESSES)
)


class Packet(NamedTuple):
    """An IP packet as far as a verdict needs it; None for what a fragment or a cut capture hides."""

    protocol: int
    source: bytes
    destination: bytes
    source_port: int | None
    destination_port: int | None
    icmp_type: int | None
    tcp_flags: int | None = None
    echo: bytes | None = None
    """Identifier and number of an ICMP echo."""

    def __str__(self) -> str:
        source, destination = (ipaddress.ip_address(raw) for raw in (self.source, self.destination))
        detail = f" type {self.icmp_type}" if self.icmp_type is not None else ""
        detail += f" flags {self.tcp_flags:#04x}" if self.tcp_flags is not None else ""
        ports = f" port {self.source_port} -> {self.destination_port}"
        return f"protocol {self.protocol}{detail} {source} -> {destination}{ports}"


class Verdict(NamedTuple):
    """How many packets left, by why they may, and those that may not."""

    examined: int
    allowed: Counter[str]
    leaked: int
    leaks: frozenset[tuple[int, str]]
    """Protocol and destination of what leaked."""
    examples: list[str]


class Captures:
    """tcpdump at every far end, from :meth:`start` to :meth:`stop`."""

    def __init__(self, lab: Lab, *, further: Sequence[str] = ()) -> None:
        """``further`` are devices of the exit that lead to the client as well."""
        self._lab = lab
        self._ends = (*ENDS, *((EXIT, device) for device in further))
        self._files: list[Path] = []
        self._calls: list[Path] = []
        """What the outside sent to the client."""
        self._running: list[subprocess.Popen[str]] = []

    def start(self) -> None:
        """Return when all of them listen. HostError when one does not."""
        for host, device in self._ends:
            self._files.append(self._capture(host, device, "in"))
        for device in (ROAD_A, ROAD_B):
            self._calls.append(
                self._capture(EXIT, device, "out", f"src host {OUTSIDE} or src host {OUTSIDE6}")
            )
        deadline = time.monotonic() + START_TIMEOUT
        while not all("listening on" in self._lab.output(running) for running in self._running):
            if time.monotonic() > deadline:
                raise HostError("tcpdump does not start: install it, and run this as root.")
            time.sleep(0.02)

    def _capture(self, host: str, device: str, direction: str, which: str = "") -> Path:
        path = self._lab.directory / f"wire-{device}-{direction}.pcap"
        options = f"-n -Q {direction} -s {SNAPSHOT} -U --immediate-mode -B 16384 -Z root -w {path} {which}"
        self._running.append(self._lab.start(host, ["tcpdump", "-i", device, *options.split()]))
        return path

    def stop(self) -> None:
        """Write out what has come. HostError when a packet went by unseen."""
        for running in self._running:
            running.send_signal(signal.SIGINT)
        for running in self._running:
            running.wait(START_TIMEOUT)
            if "\n0 packets dropped by kernel" not in self._lab.output(running):
                raise HostError(f"tcpdump missed packets: {self._lab.output(running).strip()}")

    def judge(self, *, lan: tuple[str, ...], unfiltered: Sequence[tuple[float, float]] = ()) -> Verdict:
        """Look at every packet; ``lan`` are the networks that may be reached, their DNS excepted.

        ``unfiltered`` are times (since 1970) in which somebody else had taken the packet filter away. Routing
        still holds then, but the kernel asks no route for a multicast group, nor for a neighbour on the
        device that a socket is bound to, and it trusts a mark that a privileged program gives its packets:
        those are counted apart.
        """
        networks = [ipaddress.ip_network(text) for text in lan]
        allowed: Counter[str] = Counter()
        examples: list[str] = []
        leaks: set[tuple[int, str]] = set()
        leaked = 0
        begun = Conversations(item for path in self._calls for item in frames(path.read_bytes()))
        for path in self._files:
            for at, frame in frames(path.read_bytes()):
                reason = why_allowed(frame, networks) or begun.why_reply(at, frame)
                if reason is None and any(a <= at <= b for a, b in unfiltered):
                    reason = why_unfiltered(frame, networks)
                if reason is not None:
                    allowed[reason] += 1
                    continue
                leaked += 1
                packet = parse(frame)
                if packet is not None:
                    leaks.add((packet.protocol, str(ipaddress.ip_address(packet.destination))))
                if len(examples) < MAX_EXAMPLES:
                    examples.append(f"{at:.3f} {path.stem}: {packet or frame[:64].hex()}")
        return Verdict(sum(allowed.values()) + leaked, allowed, leaked, frozenset(leaks), examples)


class Conversations:
    """What hosts outside have begun, by the packets that they sent; tells replies to that from all else."""

    def __init__(self, sent: Iterable[tuple[float, bytes]]) -> None:
        self._began: dict[tuple[object, ...], float] = {}
        for at, frame in sorted(sent):
            packet = parse(frame)
            if packet is not None and (key := _begins(packet)) is not None:
                self._began.setdefault(key, at)

    def why_reply(self, at: float, frame: bytes) -> str | None:
        """Return the class of a frame that answers an earlier packet from outside; None for any other."""
        packet = parse(frame)
        if packet is None or (key := _answers(packet)) is None or self._began.get(key, at + 1) > at:
            return None
        return f"replies to {_CALL_NAMES[packet.protocol]} from outside"


_CALL_NAMES: Final = {
    _TCP: "TCP connections", _UDP: "datagrams", _ICMP: "pings", _ICMPV6: "pings of IPv6",
}  # fmt: skip


def _begins(packet: Packet) -> tuple[object, ...] | None:
    """What names the conversation that a packet from outside begins; None if it begins none."""
    if packet.protocol == _TCP:
        if packet.tcp_flags is None or packet.tcp_flags & (_SYN | _ACK) != _SYN:
            return None
    elif packet.protocol in _ECHO_REPLIES:
        if packet.icmp_type != _ECHO_REPLIES[packet.protocol][0]:
            return None
    elif packet.protocol != _UDP:
        return None
    return (*packet[:5], packet.echo)


def _answers(packet: Packet) -> tuple[object, ...] | None:
    """What names the conversation that a packet is a reply in; None if it can be no reply."""
    if packet.protocol == _TCP:
        if packet.tcp_flags is None or packet.tcp_flags & (_SYN | _ACK) == _SYN:
            return None
    elif packet.protocol in _ECHO_REPLIES:
        if packet.icmp_type != _ECHO_REPLIES[packet.protocol][1]:
            return None
    elif packet.protocol != _UDP or packet.source_port is None:
        return None
    ends = (packet.destination, packet.source, packet.destination_port, packet.source_port)
    return (packet.protocol, *ends, packet.echo)


def frames(savefile: bytes) -> Iterator[tuple[float, bytes]]:
    """When (since 1970), and what: the Ethernet frames of a pcap file. ValueError for another file."""
    magic, _, _, _, _, _, link = struct.unpack_from("=IHHiIII", savefile)
    if magic != _MAGIC or link != _ETHERNET:
        raise ValueError("this is no pcap file of an Ethernet link, in this machine's byte order")
    at = 24
    while at + 16 <= len(savefile):
        seconds, microseconds, length = struct.unpack_from("=III", savefile, at)
        at += 16
        yield seconds + microseconds / 1e6, savefile[at : at + length]
        at += length


def asks_no_route(frame: bytes, lan: Sequence[Network]) -> bool:
    """Whether its IP packet goes to a group or to a neighbour."""
    packet = parse(frame)
    if packet is None:
        return False
    address = ipaddress.ip_address(packet.destination)
    return address.is_multicast or any(address in network for network in lan)


def why_unfiltered(frame: bytes, lan: Sequence[Network]) -> str | None:
    """Return the class of a frame that routing alone cannot hold; None for any other."""
    packet = parse(frame)
    if packet is not None and packet.destination_port == FORGED_PORT:
        return FORGED
    return UNFILTERED if asks_no_route(frame, lan) else None


def parse(frame: bytes) -> Packet | None:
    """The IP packet of a frame; None when there is none."""
    kind = int.from_bytes(frame[12:14], "big")
    if kind == _IPV4 and len(frame) >= 34:
        header = 14 + (frame[14] & 0x0F) * 4
        later_fragment = int.from_bytes(frame[20:22], "big") & 0x1FFF
        return _transport(frame, frame[23], frame[26:30], frame[30:34], None if later_fragment else header)
    if kind == _IPV6 and len(frame) >= 54:
        protocol, at = frame[20], 54
        place: int | None = at
        while protocol in (_HOP_BY_HOP, _FRAGMENT) and len(frame) >= at + 8:
            if protocol == _FRAGMENT and int.from_bytes(frame[at + 2 : at + 4], "big") & 0xFFF8:
                place = None
            length = 8 if protocol == _FRAGMENT else (frame[at + 1] + 1) * 8
            protocol, at = frame[at], at + length
            place = place and at
        return _transport(frame, protocol, frame[22:38], frame[38:54], place)
    return None


def _transport(frame: bytes, protocol: int, source: bytes, destination: bytes, at: int | None) -> Packet:
    if at is None or len(frame) < at + 4:
        return Packet(protocol, source, destination, None, None, None)
    if protocol in (_TCP, _UDP):
        ports = struct.unpack_from(">HH", frame, at)
        flags = frame[at + 13] if protocol == _TCP and len(frame) > at + 13 else None
        return Packet(protocol, source, destination, ports[0], ports[1], None, flags)
    icmp_type = frame[at] if protocol in (_ICMP, _ICMPV6) else None
    echo = frame[at + 4 : at + 8] if icmp_type in _ECHO_REPLIES.get(protocol, ()) else None
    return Packet(protocol, source, destination, None, None, icmp_type, None, echo)


def why_allowed(frame: bytes, lan: Sequence[Network]) -> str | None:
    """What a frame is that may leave outside the tunnel; None for a leak."""
    if int.from_bytes(frame[12:14], "big") == _ARP:
        return "neighbour discovery"
    packet = parse(frame)
    if packet is None:
        return None
    if packet.protocol == _TCP and packet.destination in _ROADS and packet.destination_port in LEG_PORTS:
        return "legs"
    if packet.protocol == _TCP and packet.destination in _ROADS and packet.destination_port == PROBE_PORT:
        return (
            "whether there is a captive portal"  # our own question; no traffic here asks the exit for pages
        )
    if packet.protocol == _ICMPV6 and packet.icmp_type in _NEIGHBOUR_TYPES:
        return "neighbour discovery"
    if packet.protocol == _UDP and (packet.source_port, packet.destination_port) in ((68, 67), (546, 547)):
        return "DHCP"
    if packet.protocol == _UDP and packet.destination_port == 53 and _ROAD_NAME in frame:
        return "where the roads are"  # our own question, before a leg can be dialled
    if packet.protocol in (_TCP, _UDP) and packet.destination_port in (53, None):
        return None  # a query; or what a fragment hides, which may be one
    address = ipaddress.ip_address(packet.destination)
    return "the LAN" if any(address in network for network in lan) else None
