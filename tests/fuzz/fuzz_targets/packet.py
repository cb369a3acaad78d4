"""Everything that the host sends: frames, IP, transport headers, fragments."""

from __future__ import annotations

import struct
from contextlib import suppress

from fuzz_targets.script import Script
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import PacketError
from halftunnel_vpn.icmp_error import IcmpErrorKind
from halftunnel_vpn.inet import extensions, icmp, ip, tcp, udp, vnet
from halftunnel_vpn.inet.checksum import internet_checksum
from halftunnel_vpn.inet.fragments import Reassembler

HOST, SERVER = b"\x0a\x00\x00\x02", b"\xc6\x33\x64\x02"
HOST_V6, SERVER_V6 = b"\xfd" + bytes(14) + b"\x02", b"\x20\x01\x0d\xb8" + bytes(11) + b"\x02"
MAX_WAITING_BYTES = 64 * 1024
MAX_WAITING = 4


def with_checksum(packet: bytes) -> bytes:
    """The same bytes with the checksum of an IPv4 header put right: hardly a mutation would hit it."""
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return packet
    length = max(4 * (packet[0] & 15), 20)
    zeroed = packet[:10] + b"\0\0" + packet[12:]
    return zeroed[:10] + internet_checksum(zeroed[:length]).to_bytes(2, "big") + zeroed[12:]


def around(payload: bytes, protocol: int, *, is_v6: bool) -> ip.IpPacket:
    """A sound IP packet with ``payload``, from the host."""
    source, destination = (HOST_V6, SERVER_V6) if is_v6 else (HOST, SERVER)
    payload = payload[: ip.MAX_PACKET - ip.IPV4_HEADER_LENGTH]
    header = ip.build(source, destination, protocol, len(payload))
    return ip.parse(memoryview(header + payload))


def vnet_header(data: bytes) -> None:
    """The header in front of a frame."""
    with suppress(PacketError):
        assert vnet.parse(data).encode() == data[: vnet.VNET_HEADER_LENGTH]


def ip_packet(data: bytes) -> None:
    """An IP packet, with the errors that it may be answered by."""
    packet = with_checksum(data[1:]) if data[:1] != b"\xff" else data[1:]
    with suppress(PacketError):
        parsed = ip.parse(memoryview(packet))
        assert len(parsed.raw) <= len(packet)
        assert parsed.header_length + len(parsed.payload) == len(parsed.raw)
        repr(parsed)
        for kind in IcmpErrorKind:
            source = SERVER if parsed.version == 4 else SERVER_V6
            frame = icmp.build_error(parsed, kind, source=source, mtu=1280)
            if frame is not None:
                ip.parse(memoryview(frame)[vnet.VNET_HEADER_LENGTH :])


def extension_headers(data: bytes) -> None:
    """A chain of IPv6 extension headers: the first byte says what the first of them is."""
    header = ip.build(HOST_V6, SERVER_V6, data[0] if data else 0, len(data[1:]) & 0xFFFF)
    with suppress(PacketError):
        chain = extensions.walk(memoryview(header + data[1:]))
        assert 40 <= chain.end <= len(header) + len(data)


def tcp_segment(data: bytes) -> None:
    """A segment; the first byte says whether over IPv6, and whether its checksum is believed."""
    with suppress(PacketError):
        first = data[0] if data else 0
        packet = around(data[1:], ip.PROTOCOL_TCP, is_v6=bool(first & 1))
        segment = tcp.parse(packet, checksum_trusted=bool(first & 2))
        repr(segment)
        assert len(segment.sack_blocks) <= tcp.MAX_SACK_BLOCKS
        options = tcp.encode_options(
            segment.mss, segment.window_scale, segment.sack_permitted, segment.sack_blocks
        )
        assert len(options) % 4 == 0 and len(options) <= tcp.MAX_OPTIONS


def udp_datagram(data: bytes) -> None:
    """A datagram; the first byte as for TCP."""
    with suppress(PacketError):
        first = data[0] if data else 0
        packet = around(data[1:], ip.PROTOCOL_UDP, is_v6=bool(first & 1))
        datagram = udp.parse(packet, checksum_trusted=bool(first & 2))
        assert len(datagram.payload) <= len(packet.payload) - udp.HEADER_LENGTH


def icmp_message(data: bytes) -> None:
    """An ICMP message; the first byte as for TCP. A request is answered by a sound reply."""
    with suppress(PacketError):
        first = data[0] if data else 0
        is_v6 = bool(first & 1)
        packet = around(data[1:], ip.PROTOCOL_ICMPV6 if is_v6 else ip.PROTOCOL_ICMP, is_v6=is_v6)
        echo = icmp.parse(packet, checksum_trusted=bool(first & 2))
        parts = icmp.build_echo_reply(
            packet.destination, packet.source, echo.identifier, echo.sequence, echo.payload
        )
        reply = ip.parse(memoryview(b"".join(parts))[vnet.VNET_HEADER_LENGTH :])
        assert reply.payload[udp.HEADER_LENGTH :] == echo.payload


def fragment_of(is_v6: bool, identification: int, offset: int, more: bool, payload: bytes) -> bytes:
    """One fragment; ``offset`` counts eights of bytes."""
    if is_v6:
        place = offset << 3 | more
        inner = struct.pack(">BxHI", ip.PROTOCOL_UDP, place & 0xFFFF, identification) + payload
        return ip.build(HOST_V6, SERVER_V6, extensions.FRAGMENT, len(inner)) + inner
    header = bytearray(ip.build(HOST, SERVER, ip.PROTOCOL_UDP, len(payload), identification=identification))
    header[6:8] = (more << 13 | offset & 0x1FFF).to_bytes(2, "big")
    return with_checksum(bytes(header)) + payload


def fragments(data: bytes) -> None:
    """Fragments in any order; the bounds of what waits hold, and nothing is left when time is up."""
    script = Script(data)
    counters = Counters()
    reassembler = Reassembler(counters, max_bytes=MAX_WAITING_BYTES, max_datagrams=MAX_WAITING)
    now = 0.0
    while script:
        how = script.number()
        offset, length = script.number(2), script.number(2)
        payload = bytes((how,)) * (length & 0x7FF8 if how & 2 else length & 0x7FFF)
        raw = fragment_of(bool(how & 1), how >> 4 & 7 or 1, offset, bool(how & 2), payload)
        with suppress(PacketError):
            reassembler.add(ip.parse(memoryview(raw)), now)
        assert 0 <= reassembler.bytes_held <= MAX_WAITING_BYTES
        assert len(reassembler) <= MAX_WAITING
        now += 5.0 if how & 8 else 0.0
    reassembler.expire(now + 1000.0)
    assert reassembler.bytes_held == 0 and len(reassembler) == 0
