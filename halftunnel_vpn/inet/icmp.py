"""ICMP (RFC 792, RFC 1812) and ICMPv6 (RFC 4443): echo, and the errors that we send to the host."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from halftunnel_vpn.errors import PacketError
from halftunnel_vpn.icmp_error import IcmpErrorKind
from halftunnel_vpn.inet import extensions, ip, vnet
from halftunnel_vpn.inet.checksum import internet_checksum

HEADER_LENGTH: Final = 8
MAX_ERROR_V4: Final = 576
"""Bytes of an IPv4 packet with an error: it quotes as much as fits (RFC 1812, 4.3.2.3)."""
MAX_ERROR_V6: Final = 1280
"""The same for IPv6: the smallest MTU there is (RFC 4443, 2.4 c)."""

_ECHO_REQUEST_V4: Final = 8
_ECHO_REPLY_V4: Final = 0
_ECHO_REQUEST_V6: Final = 128
_ECHO_REPLY_V6: Final = 129

_INTERNETWORK_CONTROL: Final = 0xC0
"""Type of service of ICMP errors in IPv4 (RFC 1812, 4.3.2.5)."""

_LAYOUT: Final = struct.Struct(">BBHHH")
_ERROR_LAYOUT: Final = struct.Struct(">BBHI")


_TYPES_V4: Final = {
    IcmpErrorKind.NET_UNREACHABLE: (3, 0),
    IcmpErrorKind.HOST_UNREACHABLE: (3, 1),
    IcmpErrorKind.PROTOCOL_UNREACHABLE: (3, 2),
    IcmpErrorKind.PORT_UNREACHABLE: (3, 3),
    IcmpErrorKind.PACKET_TOO_BIG: (3, 4),
    IcmpErrorKind.ADMIN_PROHIBITED: (3, 13),
    IcmpErrorKind.TIME_EXCEEDED: (11, 0),
}
_TYPES_V6: Final = {
    IcmpErrorKind.NET_UNREACHABLE: (1, 0),
    IcmpErrorKind.ADMIN_PROHIBITED: (1, 1),
    IcmpErrorKind.HOST_UNREACHABLE: (1, 3),
    IcmpErrorKind.PORT_UNREACHABLE: (1, 4),
    IcmpErrorKind.PACKET_TOO_BIG: (2, 0),
    IcmpErrorKind.TIME_EXCEEDED: (3, 0),
    IcmpErrorKind.PROTOCOL_UNREACHABLE: (4, 1),
}
"""Type and code; in ICMPv6 an unknown protocol is a parameter problem that points at the byte."""

_ERRORS_V4: Final = frozenset({3, 4, 5, 11, 12})
_FIRST_INFORMATIONAL_V6: Final = 128
_REDIRECT_V6: Final = 137


@dataclass(slots=True, eq=False)
class Echo:
    """An echo request; ``payload`` is what the reply has to bring back."""

    identifier: int
    sequence: int
    payload: ip.View
    is_v6: bool


def parse(packet: ip.IpPacket, *, checksum_trusted: bool) -> Echo:
    """Read the echo request in ``packet``, a whole datagram of protocol 1 (IPv4) or 58 (IPv6).

    Raises PacketError: icmp-too-short, icmp-bad-checksum, icmp-not-echo (any other message).
    """
    message = packet.payload
    is_v6 = packet.version == 6
    if len(message) < HEADER_LENGTH:
        raise PacketError("icmp-too-short", f"{len(message)} bytes")
    if not checksum_trusted and _checksum(packet.source, packet.destination, message):
        raise PacketError("icmp-bad-checksum")
    kind, code, _, identifier, sequence = _LAYOUT.unpack_from(message)
    if code or kind != (_ECHO_REQUEST_V6 if is_v6 else _ECHO_REQUEST_V4):
        raise PacketError("icmp-not-echo", f"type {kind}, code {code}")
    return Echo(identifier, sequence, message[HEADER_LENGTH:], is_v6)


def build_echo_reply(
    source: bytes,
    destination: bytes,
    identifier: int,
    sequence: int,
    payload: bytes | bytearray | memoryview,
    *,
    hop_limit: int = ip.DEFAULT_HOP_LIMIT,
    traffic_class: int = 0,
) -> tuple[bytes, bytes | bytearray | memoryview]:
    """Return the two parts of the frame with an echo reply: all headers, and ``payload`` itself.

    ``source`` is the address that was asked, ``destination`` the one that asked, 4 or 16 bytes each. Raises
    ValueError and struct.error as :func:`ip.build` does.
    """
    is_v6 = len(source) == 16
    kind = _ECHO_REPLY_V6 if is_v6 else _ECHO_REPLY_V4
    header = ip.build(
        source, destination, ip.PROTOCOL_ICMPV6 if is_v6 else ip.PROTOCOL_ICMP, HEADER_LENGTH + len(payload),
        hop_limit=hop_limit, traffic_class=traffic_class,
    )  # fmt: skip
    # Summed up here and not by the kernel: a raw socket gets to see the field as it is.
    checksum = _checksum(source, destination, _LAYOUT.pack(kind, 0, 0, identifier, sequence), payload)
    return vnet.PLAIN + header + _LAYOUT.pack(kind, 0, checksum, identifier, sequence), payload


def build_error(original: ip.IpPacket, kind: IcmpErrorKind, *, source: bytes, mtu: int = 0) -> bytes | None:
    """Return the frame with an error about ``original``, from the address ``source``.

    ``mtu`` in bytes goes with PACKET_TOO_BIG. None when no error may be sent (RFC 1122, 3.2.2; RFC 4443,
    2.4 e): about an error, a fragment other than the first, or a packet to many. Raises ValueError when
    ``source`` is not of the original's version.
    """
    if not _may_be_answered(original):
        return None
    if original.version == 4:
        message_type, code = _TYPES_V4[kind]
        rest = min(mtu, 0xFFFF) if kind is IcmpErrorKind.PACKET_TOO_BIG else 0
        protocol, traffic_class = ip.PROTOCOL_ICMP, _INTERNETWORK_CONTROL
        room = MAX_ERROR_V4 - ip.IPV4_HEADER_LENGTH - HEADER_LENGTH
    else:
        message_type, code = _TYPES_V6[kind]
        rest = mtu if kind is IcmpErrorKind.PACKET_TOO_BIG else 0
        if kind is IcmpErrorKind.PROTOCOL_UNREACHABLE:
            rest = extensions.walk(original.raw).protocol_at
        protocol, traffic_class = ip.PROTOCOL_ICMPV6, 0
        room = MAX_ERROR_V6 - ip.IPV6_HEADER_LENGTH - HEADER_LENGTH
    quote = original.raw[:room]
    header = ip.build(
        source, original.source, protocol, HEADER_LENGTH + len(quote), traffic_class=traffic_class
    )
    checksum = _checksum(source, original.source, _ERROR_LAYOUT.pack(message_type, code, 0, rest), quote)
    return b"".join((vnet.PLAIN, header, _ERROR_LAYOUT.pack(message_type, code, checksum, rest), quote))


def _may_be_answered(packet: ip.IpPacket) -> bool:
    """Return whether ``packet`` may cause an ICMP error."""
    if packet.fragment is not None and packet.fragment.offset:
        return False
    message = packet.payload
    if packet.version == 4:
        if packet.destination[0] >= 224:  # multicast, reserved and the limited broadcast
            return False
        return packet.protocol != ip.PROTOCOL_ICMP or (len(message) > 0 and message[0] not in _ERRORS_V4)
    if packet.destination[0] == 0xFF:
        return False
    if packet.protocol != ip.PROTOCOL_ICMPV6:
        return True
    return len(message) > 0 and message[0] >= _FIRST_INFORMATIONAL_V6 and message[0] != _REDIRECT_V6


def _checksum(source: bytes, destination: bytes, *message: bytes | bytearray | memoryview) -> int:
    """Return the checksum of a message; ICMPv6 has a pseudo-header (RFC 4443, 2.3), ICMP has none."""
    if len(source) == 4:
        return internet_checksum(*message)
    length = sum(map(len, message))
    pseudo_header = b"".join((source, destination, struct.pack(">II", length, ip.PROTOCOL_ICMPV6)))
    return internet_checksum(pseudo_header, *message)
