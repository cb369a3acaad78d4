"""TCP segments of a capture file (the pcap format of tcpdump, pcap-savefile(5)), read piece by piece."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from halftunnel_vpn.errors import UsageError

MAX_FRAME: Final = 1 << 18
"""Bytes of one captured frame; a larger length means that the file is damaged."""

_PCAPNG: Final = b"\x0a\x0d\x0d\x0a"
_MAGICS: Final = {
    b"\xd4\xc3\xb2\xa1": ("<", 1e-6),
    b"\xa1\xb2\xc3\xd4": (">", 1e-6),
    b"\x4d\x3c\xb2\xa1": ("<", 1e-9),
    b"\xa1\xb2\x3c\x4d": (">", 1e-9),
}
"""First bytes of a file: byte order, and the unit of the fractions of seconds."""

_LINK_HEADERS: Final = {1: 14, 113: 16, 276: 20, 101: 0, 12: 0}
"""Bytes before the IP packet by link type: Ethernet, Linux cooked (two versions), raw IP."""

_IPV4: Final = 4
_IPV6: Final = 6
_TCP: Final = 6
_EXTENSIONS: Final = frozenset((0, 43, 60))
"""IPv6 extension headers that may stand before TCP: hop-by-hop, routing, destination options."""

_HEAD: Final = 24
_RECORD: Final = 16


class Segment(NamedTuple):
    """One TCP segment: its time, its ends, and its payload as far as it was captured."""

    at: float
    """Unix time."""
    source: bytes
    source_port: int
    destination: bytes
    destination_port: int
    sequence: int
    length: int
    """Bytes of payload on the wire."""
    payload: bytes
    """The captured part of it."""


class PcapReader:
    """Reads a capture that may still be growing. Raises UsageError for a file of another format."""

    def __init__(self) -> None:
        # bytes that do not make up a whole record yet
        self._rest = b""
        self._order = ""
        self._unit = 0.0
        self._skip = 0
        # frames that hold no TCP segment
        self.others = 0

    def feed(self, data: bytes) -> list[Segment]:
        """Take the next piece of the file and return the segments that are now whole."""
        self._rest += data
        at = 0
        if not self._order:
            if len(self._rest) < _HEAD:
                return []
            self._open(self._rest[:_HEAD])
            at = _HEAD
        found = []
        record = struct.Struct(self._order + "IIII")
        while at + _RECORD <= len(self._rest):
            seconds, fraction, captured, _ = record.unpack_from(self._rest, at)
            if captured > MAX_FRAME:
                raise UsageError("the capture is damaged: a frame is too long")
            end = at + _RECORD + captured
            if end > len(self._rest):
                break
            packet = self._rest[at + _RECORD + self._skip : end]
            segment = tcp_segment(seconds + fraction * self._unit, packet)
            if segment is None:
                self.others += 1
            else:
                found.append(segment)
            at = end
        self._rest = self._rest[at:]
        return found

    def _open(self, head: bytes) -> None:
        if head[:4] == _PCAPNG:
            raise UsageError("this is a pcapng file; convert it first: tcpdump -r FILE -w NEW.pcap")
        if head[:4] not in _MAGICS:
            raise UsageError("this is neither a capture (pcap) nor a record log of htvpn audit record")
        self._order, self._unit = _MAGICS[head[:4]]
        link = int(struct.unpack(self._order + "I", head[20:])[0]) & 0xFFFF
        if link not in _LINK_HEADERS:
            raise UsageError(f"captures of link type {link} are not supported: capture on an Ethernet device")
        self._skip = _LINK_HEADERS[link]


def tcp_segment(at: float, packet: bytes) -> Segment | None:
    """Return the TCP segment of an IP packet; None when it holds none, or only a later fragment."""
    if not packet:
        return None
    version = packet[0] >> 4
    if version == _IPV4 and len(packet) >= 20:
        if packet[9] != _TCP or int.from_bytes(packet[6:8], "big") & 0x1FFF:
            return None
        total = int.from_bytes(packet[2:4], "big")
        return _segment(at, packet, packet[12:16], packet[16:20], (packet[0] & 15) * 4, total)
    if version == _IPV6 and len(packet) >= 40:
        kind, header = packet[6], 40
        while kind in _EXTENSIONS and header + 8 <= len(packet):
            kind, header = packet[header], header + 8 + packet[header + 1] * 8
        if kind != _TCP:
            return None
        total = 40 + int.from_bytes(packet[4:6], "big")
        return _segment(at, packet, packet[8:24], packet[24:40], header, total)
    return None


def _segment(
    at: float, packet: bytes, source: bytes, destination: bytes, header: int, total: int
) -> Segment | None:
    if header + 20 > len(packet):
        return None
    source_port, destination_port, sequence = struct.unpack_from(">HHI", packet, header)
    payload = header + (packet[header + 12] >> 4) * 4
    length = max(0, total - payload)
    return Segment(
        at, source, source_port, destination, destination_port, sequence, length,
        packet[payload : payload + length],
    )  # fmt: skip
