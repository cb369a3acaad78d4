from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import UDP
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    IPv6ExtHdrSegmentRouting,
    Jumbo,
    Pad1,
    PadN,
    RouterAlert,
)
from scapy.packet import Packet, Raw

from halftunnel_vpn.errors import PacketError
from halftunnel_vpn.inet import extensions, ip

Parse = Callable[[Packet | bytes], ip.IpPacket]
Refusal = Callable[[Callable[[], object]], str]

BASE = IPv6(src="fd00::1", dst="2001:db8::7")
DATAGRAM = UDP(sport=1, dport=2) / Raw(b"payload")


def raw_header(following: int, body: bytes) -> bytes:
    """An extension header with the length that ``body`` (6 + 8n bytes) gives it."""
    return bytes((following, (len(body) - 6) // 8)) + body


def packet_with(first: int, chain: bytes) -> bytes:
    return bytes(IPv6(src="fd00::1", dst="2001:db8::7", nh=first, plen=len(chain))) + chain


@pytest.mark.parametrize(
    ("chain", "length"),
    [
        (IPv6ExtHdrHopByHop(options=[RouterAlert()]), 8),
        (IPv6ExtHdrHopByHop(options=[Pad1(), Pad1(), PadN(optdata=bytes(10))]), 16),
        (IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(4))]), 8),
        (IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt(), 24),
        (IPv6ExtHdrRouting(type=2, segleft=0, addresses=["2001:db8::9"]), 24),
        (IPv6ExtHdrSegmentRouting(addresses=["2001:db8::7"], segleft=0, lastentry=0), 24),
        (IPv6ExtHdrFragment(id=9, offset=0, m=0), 8),
    ],
    ids=lambda value: value.summary() if isinstance(value, Packet) else None,
)
def test_harmless_headers_are_skipped(chain: Packet, length: int, ip_packet: Parse) -> None:
    packet = ip_packet(BASE / chain / DATAGRAM)
    assert packet.header_length == 40 + length
    assert packet.protocol == 17
    assert packet.payload[8:] == b"payload"
    assert packet.fragment is None


def test_the_walk_tells_where_the_protocol_was_named(ip_packet: Parse) -> None:
    packet = ip_packet(BASE / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / DATAGRAM)
    assert extensions.walk(packet.raw) == extensions.HeaderChain(
        protocol=17, protocol_at=48, end=56, fragment=None
    )
    plain = ip_packet(BASE / DATAGRAM)
    assert extensions.walk(plain.raw) == extensions.HeaderChain(
        protocol=17, protocol_at=6, end=40, fragment=None
    )


def test_a_first_fragment(ip_packet: Parse) -> None:
    packet = ip_packet(
        BASE / IPv6ExtHdrHopByHop() / IPv6ExtHdrFragment(nh=17, id=0xCAFE, m=1) / Raw(bytes(16))
    )
    assert packet.fragment == ip.Fragment(identification=0xCAFE, offset=0, more=True)
    assert (packet.protocol, packet.header_length, len(packet.payload)) == (17, 56, 16)


def test_behind_a_later_fragment_nothing_is_read(ip_packet: Parse) -> None:
    fragment = IPv6ExtHdrFragment(nh=extensions.DESTINATION_OPTIONS, id=3, offset=2)
    packet = ip_packet(BASE / fragment / Raw(b"\xff" * 5))
    assert packet.fragment == ip.Fragment(identification=3, offset=16, more=False)
    assert packet.protocol == extensions.DESTINATION_OPTIONS
    assert packet.payload == b"\xff" * 5


@pytest.mark.parametrize(("offset", "more", "length"), [(0, 1, 7), (0, 1, 0), (5, 0, 0), (8191, 0, 8)])
def test_impossible_fragments(
    offset: int, more: int, length: int, ip_packet: Parse, refusal: Refusal
) -> None:
    packet = BASE / IPv6ExtHdrFragment(nh=17, offset=offset, m=more) / Raw(bytes(length))
    assert refusal(lambda: ip_packet(packet)) == "ip-bad-fragment"


@pytest.mark.parametrize(
    "header",
    [
        IPv6ExtHdrRouting(type=0, segleft=1, addresses=["2001:db8::9"]),
        IPv6ExtHdrRouting(type=0, segleft=0, addresses=["2001:db8::9"]),
        IPv6ExtHdrSegmentRouting(addresses=["2001:db8::7", "2001:db8::8"], segleft=1, lastentry=1),
    ],
)
def test_source_routes_are_refused(header: Packet, ip_packet: Parse, refusal: Refusal) -> None:
    assert refusal(lambda: ip_packet(BASE / header / DATAGRAM)) == "ip-source-route"


@pytest.mark.parametrize(
    "packet",
    [
        BASE / IPv6ExtHdrDestOpt() / IPv6ExtHdrHopByHop() / DATAGRAM,
        BASE / IPv6ExtHdrFragment(nh=0, m=1) / Raw(bytes(16)),
        BASE / IPv6ExtHdrFragment(nh=44) / IPv6ExtHdrFragment(nh=17) / DATAGRAM,
        BASE / IPv6ExtHdrHopByHop(options=[Jumbo(jumboplen=70000)]) / DATAGRAM,
        packet_with(60, raw_header(17, b"\x42\x04\0\0\0\0")),
        packet_with(60, raw_header(17, b"\x05\x05\0\0\0\0")),
        packet_with(60, raw_header(17, b"\x01\x03\0\0\0\x05")),
        packet_with(60, raw_header(17, b"\0" * 6 + b"\0" * 32)),
        packet_with(60, raw_header(17, bytes(30))[:-8]),
        packet_with(60, bytes(7)),
        packet_with(0, b""),
        packet_with(44, bytes(7)),
        packet_with(60, raw_header(60, b"\x01\x04\0\0\0\0") * 8 + raw_header(17, b"\x01\x04\0\0\0\0")),
    ],
    ids=[
        "hop-by-hop after another",
        "hop-by-hop inside a fragment",
        "two fragment headers",
        "jumbogram",
        "unknown option that says discard me",
        "option longer than its header",
        "option without a length",
        "33 and more paddings",
        "header longer than the packet",
        "header of 7 bytes",
        "announced but not there",
        "half a fragment header",
        "nine headers",
    ],
)
def test_chains_that_are_refused(packet: Packet | bytes, ip_packet: Parse, refusal: Refusal) -> None:
    assert refusal(lambda: ip_packet(packet)) == "ip-bad-extension"


def test_eight_headers_are_the_most(ip_packet: Parse) -> None:
    chain = raw_header(60, b"\x01\x04\0\0\0\0") * (extensions.MAX_EXTENSION_HEADERS - 1)
    packet = ip_packet(packet_with(60, chain + raw_header(17, b"\x01\x04\0\0\0\0") + b"end"))
    assert (packet.protocol, packet.payload) == (17, b"end")


@given(
    first=st.sampled_from([0, 43, 44, 60]),
    chain=st.lists(
        st.builds(
            lambda following, units, body: bytes((following, units)) + body,
            st.sampled_from([0, 43, 44, 60, 17, 6, 59]),
            st.integers(0, 2),
            st.binary(min_size=6, max_size=22),
        ),
        max_size=10,
    ),
)
def test_random_chains_raise_nothing_but_packet_errors(first: int, chain: list[bytes]) -> None:
    data = packet_with(first, b"".join(chain))
    try:
        packet = ip.parse(memoryview(data))
    except PacketError:
        return
    assert 40 < packet.header_length <= len(packet.raw)
    assert packet.fragment is not None or packet.protocol not in extensions.EXTENSION_HEADERS
