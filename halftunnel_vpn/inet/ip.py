"""IPv4 (RFC 791, RFC 1122) and IPv6 (RFC 8200) headers: the network layer of a frame from the TUN."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from halftunnel_vpn.errors import PacketError
from halftunnel_vpn.inet.checksum import ONES
from halftunnel_vpn.inet.extensions import EXTENSION_HEADERS, walk

View: TypeAlias = memoryview
"""A part of a frame, as a type of fields: the compiled build looks for those in the module."""

PROTOCOL_ICMP: Final = 1
PROTOCOL_TCP: Final = 6
PROTOCOL_UDP: Final = 17
PROTOCOL_ICMPV6: Final = 58

IPV4_HEADER_LENGTH: Final = 20
IPV6_HEADER_LENGTH: Final = 40
MAX_PACKET: Final = 65535
"""Largest value of a length field of either version, in bytes (no jumbograms)."""

DEFAULT_HOP_LIMIT: Final = 64

_V4: Final = struct.Struct(">BBHHHBBH4s4s")
_V4_WORDS: Final = struct.Struct(">QQI")
_V6: Final = struct.Struct(">IHBB16s16s")

_DONT_FRAGMENT: Final = 0x4000
_MORE_FRAGMENTS: Final = 0x2000
_FRAGMENT_OFFSET: Final = 0x1FFF
_IS_FRAGMENT: Final = _MORE_FRAGMENTS | _FRAGMENT_OFFSET

_OPTION_END: Final = 0
_OPTION_NOP: Final = 1
_SOURCE_ROUTES: Final = frozenset({131, 137})

_ODD_V4_SOURCE: Final = bytes([first in (0, 127) or first >= 224 for first in range(256)])
"""1 at the index of every first byte of an IPv4 source that needs the full check."""
_LIMITED_BROADCAST: Final = b"\xff\xff\xff\xff"
_MAPPED_PREFIX: Final = bytes(10) + b"\xff\xff"
_LOOPBACK_V6: Final = bytes(15) + b"\x01"
_UNSPECIFIED_V6: Final = bytes(16)


class Fragment(NamedTuple):
    """Where a fragment belongs: ``offset`` in bytes, ``more`` when others follow behind it."""

    identification: int
    offset: int
    more: bool


@dataclass(slots=True, eq=False, repr=False)
class IpPacket:
    """One IP packet, checked.

    Addresses are 4 or 16 bytes. ``header_length`` is in bytes and counts options and extension headers;
    ``raw`` is the IP packet without anything the link put behind it. ``protocol`` is the transport
    protocol, or what the fragment header names as next header. ``fragment`` is None for a whole datagram.
    """

    version: int
    source: bytes
    destination: bytes
    protocol: int
    hop_limit: int
    traffic_class: int
    header_length: int
    raw: View
    fragment: Fragment | None

    @property
    def payload(self) -> memoryview:
        """What follows the header; made when asked for, since TCP reads ``raw`` at an offset."""
        return self.raw[self.header_length :]

    def __repr__(self) -> str:
        source, destination = ipaddress.ip_address(self.source), ipaddress.ip_address(self.destination)
        return f"<IpPacket {source} -> {destination} protocol {self.protocol}, {len(self.raw)} bytes>"


def parse(data: memoryview) -> IpPacket:
    """Read the IP packet at the start of ``data`` (a frame without its vnet header).

    Raises PacketError: ip-too-short, ip-bad-version, ip-bad-header-length, ip-bad-length, ip-bad-checksum,
    ip-bad-option, ip-source-route, ip-bad-extension, ip-bad-fragment, ip-bad-source, ip-bad-destination.
    """
    length = len(data)
    if length < IPV4_HEADER_LENGTH:
        raise PacketError("ip-too-short", f"{length} bytes")
    first = data[0]
    if first >> 4 != 4:
        if first >> 4 != 6:
            raise PacketError("ip-bad-version", str(first >> 4))
        return _parse_v6(data, length)
    high, middle, low = _V4_WORDS.unpack_from(data)
    words = high + middle + low
    header_length = IPV4_HEADER_LENGTH
    if first != 0x45:
        header_length = 4 * (first & 15)
        words += _v4_options(data, length, header_length)
    if words % ONES:
        raise PacketError("ip-bad-checksum")
    _, traffic_class, total, identification, place, hop_limit, protocol, _, source, destination = (
        _V4.unpack_from(data)
    )
    if total != length:
        if not header_length <= total <= length:
            raise PacketError("ip-bad-length", f"{total} of {length} bytes")
        data = data[:total]
    # Cheap test first: the full one is for addresses that look odd (`low` is the destination).
    if _ODD_V4_SOURCE[source[0]] or low < 0x01000000:
        _check_v4_addresses(source, destination)
    fragment = None
    if place & _IS_FRAGMENT:
        more = place & _MORE_FRAGMENTS != 0
        fragment = _fragment(identification, 8 * (place & _FRAGMENT_OFFSET), more, total - header_length)
    return IpPacket(4, source, destination, protocol, hop_limit, traffic_class, header_length, data, fragment)


def _parse_v6(data: memoryview, length: int) -> IpPacket:
    if length < IPV6_HEADER_LENGTH:
        raise PacketError("ip-too-short", f"{length} bytes")
    first, payload_length, protocol, hop_limit, source, destination = _V6.unpack_from(data)
    total = IPV6_HEADER_LENGTH + payload_length
    if total != length:
        if total > length:
            raise PacketError("ip-bad-length", f"{total} of {length} bytes")
        data = data[:total]
    if source[0] in (0, 0xFF) or destination == _UNSPECIFIED_V6:
        _check_v6_addresses(source, destination)
    header_length = IPV6_HEADER_LENGTH
    fragment = None
    if protocol in EXTENSION_HEADERS:
        protocol, _, header_length, place = walk(data)
        if place is not None:
            fragment = _fragment(*place, total - header_length)
    return IpPacket(
        6, source, destination, protocol, hop_limit, first >> 20 & 0xFF, header_length, data, fragment
    )


def _v4_options(data: memoryview, length: int, header_length: int) -> int:
    """Check the options of an IPv4 header (RFC 791, 3.1); returns their value for the header checksum."""
    if not IPV4_HEADER_LENGTH <= header_length <= length:
        raise PacketError("ip-bad-header-length", f"{header_length} of {length} bytes")
    options = bytes(data[IPV4_HEADER_LENGTH:header_length])
    at, end = 0, len(options)
    while at < end and options[at] != _OPTION_END:
        if options[at] == _OPTION_NOP:
            at += 1
            continue
        if options[at] in _SOURCE_ROUTES:
            raise PacketError("ip-source-route", f"option {options[at]}")
        if at + 2 > end or options[at + 1] < 2 or at + options[at + 1] > end:
            raise PacketError("ip-bad-option", f"option {options[at]}")
        at += options[at + 1]
    return int.from_bytes(options, "big")


def _check_v4_addresses(source: bytes, destination: bytes) -> None:
    """Refuse a source that cannot be one host's (RFC 1122, 3.2.1.3) and a destination that is no host's."""
    if source[0] in (0, 127) or 224 <= source[0] < 240 or source == _LIMITED_BROADCAST:
        raise PacketError("ip-bad-source", str(ipaddress.IPv4Address(source)))
    if destination[0] == 0:
        raise PacketError("ip-bad-destination", str(ipaddress.IPv4Address(destination)))


def _check_v6_addresses(source: bytes, destination: bytes) -> None:
    """The same for IPv6 (RFC 4291, 2.5 and 2.7); no packet has an IPv4-mapped source (RFC 4942, 2.2)."""
    if source[0] == 0xFF or source in (_UNSPECIFIED_V6, _LOOPBACK_V6) or source[:12] == _MAPPED_PREFIX:
        raise PacketError("ip-bad-source", str(ipaddress.IPv6Address(source)))
    if destination == _UNSPECIFIED_V6:
        raise PacketError("ip-bad-destination", "::")


def _fragment(identification: int, offset: int, more: bool, length: int) -> Fragment:
    """Return the place of a fragment with ``length`` bytes of payload, if it makes sense (RFC 8200, 4.5)."""
    if length == 0 or (more and length % 8) or offset + length > MAX_PACKET:
        raise PacketError("ip-bad-fragment", f"{length} bytes at {offset}")
    return Fragment(identification, offset, more)


def build(
    source: bytes,
    destination: bytes,
    protocol: int,
    payload_length: int,
    *,
    hop_limit: int = DEFAULT_HOP_LIMIT,
    traffic_class: int = 0,
    identification: int = 0,
) -> bytes:
    """Return a header without options for a packet with ``payload_length`` bytes behind it.

    IPv4 gets its checksum. With ``identification`` 0 it must not be fragmented (an atomic datagram,
    RFC 6864); any other number leaves that to the routers. IPv6 has no use for it. Raises ValueError when
    the two addresses are not of one version and struct.error when a number does not fit its field.
    """
    if len(source) == 4 == len(destination):
        total = IPV4_HEADER_LENGTH + payload_length
        place = 0 if identification else _DONT_FRAGMENT
        words = (
            (0x4500 | traffic_class) + total + identification + place + (hop_limit << 8 | protocol)
            + int.from_bytes(source, "big") + int.from_bytes(destination, "big")
        )  # fmt: skip
        return _V4.pack(
            0x45, traffic_class, total, identification, place, hop_limit, protocol, -words % ONES,
            source, destination,
        )  # fmt: skip
    if len(source) == 16 == len(destination):
        first = 6 << 28 | traffic_class << 20
        return _V6.pack(first, payload_length, protocol, hop_limit, source, destination)
    raise ValueError(f"addresses of {len(source)} and {len(destination)} bytes")
