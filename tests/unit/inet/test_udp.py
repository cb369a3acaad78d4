from __future__ import annotations

import struct
from collections.abc import Callable
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw

from halftunnel_vpn.errors import PacketError
from halftunnel_vpn.inet import ip, udp, vnet

Parse = Callable[[Packet | bytes], ip.IpPacket]
Refusal = Callable[[Callable[[], object]], str]

V4 = IP(src="10.0.0.1", dst="192.0.2.7")
V6 = IPv6(src="fd00::1", dst="2001:db8::7")
BOTH = pytest.mark.parametrize("base", [V4, V6], ids=["v4", "v6"])


def datagram_of(packet: ip.IpPacket) -> udp.UdpDatagram:
    return udp.parse(packet, checksum_trusted=False)


def build_for(base: Packet, length: int, **rest: int) -> bytes:
    source, destination = ip_address(base.src).packed, ip_address(base.dst).packed
    return udp.build(source, 53, destination, 40000, length, **rest)


@BOTH
@pytest.mark.parametrize("payload", [b"", b"even", b"odd"])
def test_a_datagram_as_scapy_builds_it(base: Packet, payload: bytes, ip_packet: Parse) -> None:
    datagram = datagram_of(ip_packet(base / UDP(sport=40000, dport=53) / Raw(payload)))
    assert (datagram.source_port, datagram.destination_port) == (40000, 53)
    assert datagram.payload == payload


@BOTH
def test_what_stands_behind_the_datagram_is_cut_off(base: Packet, ip_packet: Parse) -> None:
    packet = ip_packet(base / UDP(sport=1, dport=2, len=12, chksum=0) / Raw(b"datarest"))
    assert udp.parse(packet, checksum_trusted=True).payload == b"data"


@BOTH
def test_the_checksum_ends_where_the_datagram_does(base: Packet, ip_packet: Parse) -> None:
    datagram = bytes((base / UDP(sport=1, dport=2) / Raw(b"odd"))[UDP])
    longer = base.copy()
    longer.setfieldval("proto" if base is V4 else "nh", 17)
    assert datagram_of(ip_packet(longer / Raw(datagram + b"rest"))).payload == b"odd"


@BOTH
@pytest.mark.parametrize("payload", [b"even", b"odd"])
def test_a_wrong_checksum_is_seen_unless_the_kernel_vouches(
    base: Packet, payload: bytes, ip_packet: Parse, refusal: Refusal
) -> None:
    damaged = bytearray(bytes(base / UDP(sport=1, dport=2) / Raw(payload)))
    damaged[-1] ^= 1
    packet = ip_packet(bytes(damaged))
    assert refusal(lambda: datagram_of(packet)) == "udp-bad-checksum"
    assert udp.parse(packet, checksum_trusted=True).payload == bytes(damaged[-len(payload) :])


def test_no_checksum_at_all_is_a_right_of_ipv4_only(ip_packet: Parse, refusal: Refusal) -> None:
    bare = UDP(sport=1, dport=2, chksum=0) / Raw(b"data")
    assert datagram_of(ip_packet(V4 / bare)).payload == b"data"
    assert refusal(lambda: datagram_of(ip_packet(V6 / bare))) == "udp-zero-checksum"


@BOTH
@pytest.mark.parametrize("length", [0, 7, 13, 65535])
def test_lengths_that_cannot_be(base: Packet, length: int, ip_packet: Parse, refusal: Refusal) -> None:
    packet = ip_packet(base / UDP(sport=1, dport=2, len=length) / Raw(b"data"))
    assert refusal(lambda: datagram_of(packet)) == "udp-bad-length"


def test_less_than_a_header(ip_packet: Parse, refusal: Refusal) -> None:
    packet = ip_packet(IP(src="10.0.0.1", dst="10.0.0.2", proto=17) / Raw(bytes(7)))
    assert refusal(lambda: datagram_of(packet)) == "udp-too-short"


def test_nobody_listens_on_port_zero(ip_packet: Parse, refusal: Refusal) -> None:
    assert refusal(lambda: datagram_of(ip_packet(V4 / UDP(sport=1, dport=0)))) == "udp-bad-port"
    assert datagram_of(ip_packet(V4 / UDP(sport=0, dport=1))).source_port == 0


@BOTH
@pytest.mark.parametrize("payload", [b"", b"even", b"odd", bytes(65507)], ids=len)
def test_a_frame_as_scapy_reads_it(
    base: Packet,
    payload: bytes,
    as_the_kernel_sends: Callable[[bytes], Packet],
    recomputed: Callable[[Packet], bytes],
) -> None:
    frame = build_for(base, len(payload), hop_limit=9, traffic_class=0x2E)
    ip_length = 20 if base is V4 else 40
    assert vnet.parse(frame) == (vnet.NEEDS_CSUM, vnet.GSO_NONE, ip_length + 8, 0, ip_length, 6)
    sent = as_the_kernel_sends(frame + payload)
    assert (sent.src, sent.dst) == (base.src, base.dst)
    assert (sent.ttl, sent.tos) == (9, 0x2E) if base is V4 else (sent.hlim, sent.tc) == (9, 0x2E)
    assert (sent[UDP].sport, sent[UDP].dport) == (53, 40000)
    assert bytes(sent[UDP].payload) == payload
    assert recomputed(sent) == bytes(sent)


@BOTH
def test_a_run_of_datagrams_asks_the_kernel_to_cut_it(base: Packet) -> None:
    frame = build_for(base, 3001, segment_size=1000)
    ip_length = 20 if base is V4 else 40
    assert vnet.parse(frame) == (vnet.NEEDS_CSUM, vnet.GSO_UDP_L4, ip_length + 8, 1000, ip_length, 6)
    packet = ip.parse(memoryview(frame + bytes(3001))[vnet.VNET_HEADER_LENGTH :])
    assert len(udp.parse(packet, checksum_trusted=True).payload) == 3001


@BOTH
@pytest.mark.parametrize("length", [0, 999, 1000])
def test_a_single_datagram_is_not_cut(base: Packet, length: int) -> None:
    assert build_for(base, length, segment_size=1000) == build_for(base, length)


def test_fragments_are_allowed_by_an_identification(as_the_kernel_sends: Callable[[bytes], Packet]) -> None:
    atomic = as_the_kernel_sends(build_for(V4, 0))
    assert (atomic.id, str(atomic.flags)) == (0, "DF")
    divisible = as_the_kernel_sends(build_for(V4, 0, identification=0xBEEF))
    assert (divisible.id, str(divisible.flags)) == (0xBEEF, "")


@pytest.mark.parametrize(
    ("base", "most"), [(V4, udp.MAX_PAYLOAD_V4), (V6, ip.MAX_PACKET - udp.HEADER_LENGTH)]
)
def test_the_largest_payload(base: Packet, most: int) -> None:
    packet = ip.parse(memoryview(build_for(base, most) + bytes(most))[vnet.VNET_HEADER_LENGTH :])
    assert len(udp.parse(packet, checksum_trusted=True).payload) == most
    with pytest.raises(struct.error):
        build_for(base, most + 1)


def test_addresses_of_two_versions_are_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="addresses of 16 and 4 bytes"):
        udp.build(bytes(16), 1, bytes(4), 2, 0)


@given(st.sampled_from([4, 16]), st.binary(max_size=40), st.sampled_from([None, 8, 9, 20]), st.booleans())
def test_random_bytes_raise_nothing_but_packet_errors(
    size: int, noise: bytes, length: int | None, trusted: bool
) -> None:
    data = bytearray(noise)
    if length is not None and len(data) >= 8:
        data[4:6] = length.to_bytes(2, "big")
    addresses = b"\x20" * size
    packet = ip.parse(memoryview(ip.build(addresses, addresses, 17, len(data)) + data))
    try:
        datagram = udp.parse(packet, checksum_trusted=trusted)
    except PacketError:
        return
    assert bytes(datagram.payload) == bytes(data[8 : int.from_bytes(data[4:6], "big")])
