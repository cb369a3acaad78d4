from __future__ import annotations

import struct
from collections.abc import Callable
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP, IPOption_LSRR, IPOption_NOP, IPOption_Router_Alert, IPOption_SSRR
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw

from halftunnel_vpn.errors import PacketError
from halftunnel_vpn.inet import ip
from halftunnel_vpn.inet.checksum import internet_checksum

Parse = Callable[[Packet | bytes], ip.IpPacket]
Refusal = Callable[[Callable[[], object]], str]

V4 = {"src": "10.0.0.1", "dst": "192.0.2.7"}
V6 = {"src": "fd00::1", "dst": "2001:db8::7"}


def with_checksum(packet: bytes) -> bytes:
    """The IPv4 packet with the checksum of its header set right, whatever else is wrong with it."""
    length = 4 * (packet[0] & 15)
    checksum = internet_checksum(packet[:10], b"\0\0", packet[12:length])
    return packet[:10] + checksum.to_bytes(2, "big") + packet[12:]


def test_ipv4_as_scapy_builds_it(ip_packet: Parse) -> None:
    packet = ip_packet(IP(**V4, ttl=7, tos=0xB8, proto=6) / Raw(b"payload"))
    assert packet.version == 4
    assert packet.source == ip_address("10.0.0.1").packed
    assert packet.destination == ip_address("192.0.2.7").packed
    assert (packet.protocol, packet.hop_limit, packet.traffic_class) == (6, 7, 0xB8)
    assert packet.header_length == 20
    assert packet.payload == b"payload"
    assert packet.fragment is None
    assert repr(packet) == "<IpPacket 10.0.0.1 -> 192.0.2.7 protocol 6, 27 bytes>"


def test_ipv6_as_scapy_builds_it(ip_packet: Parse) -> None:
    packet = ip_packet(IPv6(**V6, hlim=7, tc=0xB8, fl=0xABCDE, nh=17) / Raw(b"payload"))
    assert packet.version == 6
    assert packet.source == ip_address("fd00::1").packed
    assert packet.destination == ip_address("2001:db8::7").packed
    assert (packet.protocol, packet.hop_limit, packet.traffic_class) == (17, 7, 0xB8)
    assert packet.header_length == 40
    assert packet.payload == b"payload"
    assert packet.fragment is None
    assert repr(packet) == "<IpPacket fd00::1 -> 2001:db8::7 protocol 17, 47 bytes>"


@pytest.mark.parametrize("header", [IP(**V4, proto=17), IPv6(**V6, nh=17)])
def test_what_stands_behind_the_packet_is_cut_off(header: Packet, ip_packet: Parse) -> None:
    whole = bytes(header / Raw(b"payload"))
    packet = ip_packet(whole + b"padding of an Ethernet")
    assert packet.raw == whole
    assert packet.payload == b"payload"


def test_ipv4_options_are_skipped(ip_packet: Parse) -> None:
    options = [IPOption_NOP(), IPOption_Router_Alert()]
    packet = ip_packet(IP(**V4, proto=17, options=options) / Raw(b"payload"))
    assert packet.header_length == 28
    assert packet.payload == b"payload"


@pytest.mark.parametrize("option", [IPOption_LSRR(routers=["1.2.3.4"]), IPOption_SSRR(routers=["1.2.3.4"])])
def test_ipv4_source_routes_are_refused(option: Packet, ip_packet: Parse, refusal: Refusal) -> None:
    packet = IP(**V4, options=[IPOption_NOP(), option]) / Raw(b"payload")
    assert refusal(lambda: ip_packet(packet)) == "ip-source-route"


@pytest.mark.parametrize("options", ["07000000", "07010000", "07050000", "01010107"])
def test_ipv4_options_that_do_not_add_up_are_refused(
    options: str, ip_packet: Parse, refusal: Refusal
) -> None:
    header = bytearray(bytes(IP(**V4, proto=17, len=24)) + bytes.fromhex(options))
    header[0] = 0x46
    assert refusal(lambda: ip_packet(with_checksum(bytes(header)))) == "ip-bad-option"


@pytest.mark.parametrize(
    ("length", "more", "offset", "place"),
    [(8, True, 0, (77, 0, True)), (16, True, 3, (77, 24, True)), (5, False, 2, (77, 16, False))],
)
def test_ipv4_fragments_know_their_place(
    length: int, more: bool, offset: int, place: tuple[int, int, bool], ip_packet: Parse
) -> None:
    flags = "MF" if more else 0
    packet = ip_packet(IP(**V4, id=77, flags=flags, frag=offset, proto=17) / Raw(bytes(length)))
    assert packet.fragment == place
    assert packet.fragment == ip.Fragment(*place)


@pytest.mark.parametrize(
    ("length", "flags", "offset"), [(0, "MF", 0), (7, "MF", 0), (0, 0, 5), (9, 0, 8191), (0, "MF+DF", 1)]
)
def test_impossible_ipv4_fragments(
    length: int, flags: str | int, offset: int, ip_packet: Parse, refusal: Refusal
) -> None:
    packet = IP(**V4, flags=flags, frag=offset, proto=17) / Raw(bytes(length))
    assert refusal(lambda: ip_packet(packet)) == "ip-bad-fragment"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("0.0.0.0", "ip-bad-source"),
        ("0.1.2.3", "ip-bad-source"),
        ("127.0.0.1", "ip-bad-source"),
        ("224.0.0.1", "ip-bad-source"),
        ("239.255.255.255", "ip-bad-source"),
        ("255.255.255.255", "ip-bad-source"),
        ("::", "ip-bad-source"),
        ("::1", "ip-bad-source"),
        ("ff02::1", "ip-bad-source"),
        ("::ffff:10.0.0.1", "ip-bad-source"),
    ],
)
def test_sources_that_are_no_host(source: str, reason: str, ip_packet: Parse, refusal: Refusal) -> None:
    packet = IPv6(src=source, dst=V6["dst"]) if ":" in source else IP(src=source, dst=V4["dst"])
    assert refusal(lambda: ip_packet(packet / UDP())) == reason


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        ("1.0.0.1", "1.0.0.0"),
        ("126.255.255.255", "127.0.0.1"),
        ("128.0.0.1", "224.0.0.251"),
        ("223.255.255.255", "255.255.255.255"),
        ("240.0.0.1", "10.255.255.255"),
        ("64:ff9b::a00:1", "ff02::1"),
        ("fe80::1", "::1"),
        ("::a00:1", "::ffff:10.0.0.1"),
    ],
)
def test_other_addresses_pass(source: str, destination: str, ip_packet: Parse) -> None:
    layer = IPv6 if ":" in source else IP
    packet = ip_packet(layer(src=source, dst=destination) / UDP())
    assert packet.source == ip_address(source).packed
    assert packet.destination == ip_address(destination).packed


@pytest.mark.parametrize("packet", [IP(src="10.0.0.1", dst="0.0.0.0"), IPv6(src="fd00::1", dst="::")])
def test_nobody_is_no_destination(packet: Packet, ip_packet: Parse, refusal: Refusal) -> None:
    assert refusal(lambda: ip_packet(packet / UDP())) == "ip-bad-destination"


@pytest.mark.parametrize("length", [0, 1, 19])
def test_less_than_a_header(length: int, ip_packet: Parse, refusal: Refusal) -> None:
    assert refusal(lambda: ip_packet(bytes(IP(**V4))[:length])) == "ip-too-short"


@pytest.mark.parametrize("length", [20, 39])
def test_less_than_an_ipv6_header(length: int, ip_packet: Parse, refusal: Refusal) -> None:
    assert refusal(lambda: ip_packet(bytes(IPv6(**V6))[:length])) == "ip-too-short"


@pytest.mark.parametrize("version", [0, 5, 7, 15])
def test_other_versions(version: int, ip_packet: Parse, refusal: Refusal) -> None:
    packet = bytes((version << 4 | 5,)) + bytes(IP(**V4))[1:]
    assert refusal(lambda: ip_packet(packet)) == "ip-bad-version"


@pytest.mark.parametrize("words", [0, 4, 6, 15])
def test_header_lengths_that_cannot_be(words: int, ip_packet: Parse, refusal: Refusal) -> None:
    packet = bytes((0x40 | words,)) + bytes(IP(**V4))[1:]
    assert refusal(lambda: ip_packet(packet)) == "ip-bad-header-length"


@pytest.mark.parametrize(
    "packet",
    [IP(**V4, len=19), IP(**V4, len=0), IP(**V4, len=21), IPv6(**V6, plen=1), IPv6(**V6, plen=65535)],
)
def test_lengths_that_cannot_be(packet: Packet, ip_packet: Parse, refusal: Refusal) -> None:
    assert refusal(lambda: ip_packet(packet)) == "ip-bad-length"


@given(position=st.integers(0, 19), bit=st.integers(0, 7))
def test_one_flipped_bit_in_an_ipv4_header_never_passes(position: int, bit: int) -> None:
    packet = bytearray(bytes(IP(**V4, proto=17) / Raw(bytes(60))))
    packet[position] ^= 1 << bit
    with pytest.raises(PacketError):
        ip.parse(memoryview(packet))


@pytest.mark.parametrize(
    ("identification", "flags"), [(0, "DF"), (0x1234, "")], ids=["atomic", "may be fragmented"]
)
def test_building_ipv4_as_scapy_does(
    identification: int, flags: str, recomputed: Callable[[Packet], bytes]
) -> None:
    header = ip.build(
        ip_address("10.0.0.1").packed,
        ip_address("192.0.2.7").packed,
        6,
        7,
        hop_limit=9,
        traffic_class=0x2E,
        identification=identification,
    )
    read = IP(header + b"payload")
    assert (read.src, read.dst, read.proto, read.ttl, read.tos) == ("10.0.0.1", "192.0.2.7", 6, 9, 0x2E)
    assert (read.len, read.id, str(read.flags)) == (27, identification, flags)
    assert recomputed(read) == header + b"payload"


def test_building_ipv6_as_scapy_does(recomputed: Callable[[Packet], bytes]) -> None:
    source, destination = ip_address("fd00::1").packed, ip_address("2001:db8::7").packed
    header = ip.build(source, destination, 58, 7, hop_limit=9, traffic_class=0x2E)
    read = IPv6(header + b"payload")
    assert (read.src, read.dst, read.nh, read.hlim, read.tc) == ("fd00::1", "2001:db8::7", 58, 9, 0x2E)
    assert (read.plen, read.fl) == (7, 0)
    assert recomputed(IPv6(header) / Raw(b"payload")) == header + b"payload"


@given(
    size=st.sampled_from([4, 16]),
    data=st.data(),
    protocol=st.sampled_from([1, 6, 17, 58, 132]),
    payload=st.binary(max_size=50),
    hop_limit=st.integers(0, 255),
    traffic_class=st.integers(0, 255),
    identification=st.integers(0, 65535),
)
def test_what_is_built_is_read_back(
    size: int,
    data: st.DataObject,
    protocol: int,
    payload: bytes,
    hop_limit: int,
    traffic_class: int,
    identification: int,
) -> None:
    source = b"\x20" + data.draw(st.binary(min_size=size - 1, max_size=size - 1))
    destination = b"\x20" + data.draw(st.binary(min_size=size - 1, max_size=size - 1))
    header = ip.build(
        source,
        destination,
        protocol,
        len(payload),
        hop_limit=hop_limit,
        traffic_class=traffic_class,
        identification=identification,
    )
    packet = ip.parse(memoryview(header + payload))
    assert (packet.source, packet.destination, packet.protocol) == (source, destination, protocol)
    assert (packet.hop_limit, packet.traffic_class) == (hop_limit, traffic_class)
    assert packet.payload == payload


def test_addresses_of_two_versions_are_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="addresses of 4 and 16 bytes"):
        ip.build(bytes(4), bytes(16), 6, 0)
    with pytest.raises(ValueError, match="addresses of 16 and 4 bytes"):
        ip.build(bytes(16), bytes(4), 6, 0)


def test_so_is_a_payload_that_no_length_field_can_tell() -> None:
    with pytest.raises(struct.error):
        ip.build(bytes(4), bytes(4), 6, 65516)
    with pytest.raises(struct.error):
        ip.build(bytes(16), bytes(16), 6, 65536)


@given(st.sampled_from([0x45, 0x46, 0x4F, 0x60]), st.binary(max_size=120), st.booleans())
def test_random_bytes_raise_nothing_but_packet_errors(first: int, rest: bytes, repair: bool) -> None:
    packet = bytes((first,)) + rest
    if repair and first < 0x60 and len(packet) >= 60:
        packet = with_checksum(packet[:2] + len(packet).to_bytes(2, "big") + packet[4:])
    try:
        parsed = ip.parse(memoryview(packet))
    except PacketError:
        return
    assert parsed.header_length + len(parsed.payload) == len(parsed.raw) <= len(packet)
