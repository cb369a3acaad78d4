"""UDP datagrams (RFC 768; RFC 8200, 8.1), one to a frame or a run of them in a segmented one."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from halftunnel_vpn.errors import PacketError
from halftunnel_vpn.inet import ip, vnet
from halftunnel_vpn.inet.checksum import ONES, pseudo_header_sum

HEADER_LENGTH: Final = 8
MAX_PAYLOAD_V4: Final = ip.MAX_PACKET - ip.IPV4_HEADER_LENGTH - HEADER_LENGTH
"""Bytes of payload that the length fields of IPv4 have room for."""

_CHECKSUM_AT: Final = 6
_LAYOUT: Final = struct.Struct(">HHHH")


@dataclass(slots=True, eq=False)
class UdpDatagram:
    """One datagram, checked; in a segmented frame ``payload`` is a run of them, gso_size bytes each."""

    source_port: int
    destination_port: int
    payload: ip.View


def parse(packet: ip.IpPacket, *, checksum_trusted: bool) -> UdpDatagram:
    """Read the datagram in ``packet``, a whole datagram of protocol 17.

    Raises PacketError: udp-too-short, udp-bad-length, udp-zero-checksum (IPv6 only), udp-bad-checksum,
    udp-bad-port (a datagram to port 0).
    """
    raw = packet.raw
    start = packet.header_length
    room = len(raw) - start
    if room < HEADER_LENGTH:
        raise PacketError("udp-too-short", f"{room} bytes")
    source_port, destination_port, length, checksum = _LAYOUT.unpack_from(raw, start)
    if not HEADER_LENGTH <= length <= room:
        raise PacketError("udp-bad-length", f"{length} of {room} bytes")
    end = start + length
    if not checksum_trusted:
        if checksum:
            words = pseudo_header_sum(packet.source, packet.destination, ip.PROTOCOL_UDP, length)
            data = int.from_bytes(raw[start:end], "big") << 8 * (length & 1)
            if (words + data) % ONES:
                raise PacketError("udp-bad-checksum")
        elif packet.version == 6:
            raise PacketError("udp-zero-checksum")
    if not destination_port:
        raise PacketError("udp-bad-port", f"{source_port} -> 0")
    return UdpDatagram(source_port, destination_port, raw[start + HEADER_LENGTH : end])


def build(
    source: bytes,
    source_port: int,
    destination: bytes,
    destination_port: int,
    payload_length: int,
    *,
    hop_limit: int = ip.DEFAULT_HOP_LIMIT,
    traffic_class: int = 0,
    segment_size: int = 0,
    identification: int = 0,
) -> bytes:
    """vnet, IP and UDP header of one frame; the payload follows as it is.

    The checksum is left to the kernel. With 0 < ``segment_size`` < ``payload_length`` the kernel cuts
    datagrams of ``segment_size`` bytes of payload, the last one maybe shorter. ``identification`` as in
    :func:`ip.build`: 0 forbids fragments. Raises ValueError when the addresses are not of one version and
    struct.error when a number does not fit its field, a payload beyond MAX_PAYLOAD_V4 or _V6 among them.
    """
    length = HEADER_LENGTH + payload_length
    header = ip.build(
        source, destination, ip.PROTOCOL_UDP, length,
        hop_limit=hop_limit, traffic_class=traffic_class, identification=identification,
    )  # fmt: skip
    pseudo = pseudo_header_sum(source, destination, ip.PROTOCOL_UDP, length)
    prefix = _VNET_V4 if len(header) == ip.IPV4_HEADER_LENGTH else _VNET_V6
    if payload_length > segment_size > 0:
        prefix = _vnet_header(len(header), segment_size)
    return prefix + header + _LAYOUT.pack(source_port, destination_port, length, pseudo)


def _vnet_header(ip_length: int, segment_size: int) -> bytes:
    return vnet.VnetHeader(
        flags=vnet.NEEDS_CSUM,
        gso_type=vnet.GSO_UDP_L4 if segment_size else vnet.GSO_NONE,
        hdr_len=ip_length + HEADER_LENGTH,
        gso_size=segment_size,
        csum_start=ip_length,
        csum_offset=_CHECKSUM_AT,
    ).encode()


_VNET_V4: Final = _vnet_header(ip.IPV4_HEADER_LENGTH, 0)
_VNET_V6: Final = _vnet_header(ip.IPV6_HEADER_LENGTH, 0)
