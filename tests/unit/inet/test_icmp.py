from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror, UDPerror
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_Redirect,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPerror6,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.packet import Packet, Raw

from halftunnel_vpn.errors import PacketError
from halftunnel_vpn.icmp_error import IcmpErrorKind
from halftunnel_vpn.inet import icmp, ip, vnet

Parse = Callable[[Packet | bytes], ip.IpPacket]
Refusal = Callable[[Callable[[], object]], str]
KernelSends = Callable[[bytes], Packet]
Recomputed = Callable[[Packet], bytes]

V4 = IP(src="10.0.0.1", dst="192.0.2.7")
V6 = IPv6(src="fd00::1", dst="2001:db8::7")
BOTH = pytest.mark.parametrize("base", [V4, V6], ids=["v4", "v6"])
ROUTER_V4 = ip_address("10.0.0.254").packed
ROUTER_V6 = ip_address("fd00::fe").packed


def echo_request(base: Packet, payload: bytes, **fields: int) -> Packet:
    message = ICMP(id=77, seq=3, **fields) if base is V4 else ICMPv6EchoRequest(id=77, seq=3, **fields)
    return base / message / Raw(payload)


# --- echo ---------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("payload", [b"", b"even", b"odd"])
def test_an_echo_request_as_scapy_builds_it(base: Packet, payload: bytes, ip_packet: Parse) -> None:
    echo = icmp.parse(ip_packet(echo_request(base, payload)), checksum_trusted=False)
    assert (echo.identifier, echo.sequence, echo.payload) == (77, 3, payload)
    assert echo.is_v6 == (base is V6)


@BOTH
@pytest.mark.parametrize("payload", [b"", b"even", b"odd", bytes(1473)], ids=len)
def test_an_echo_reply_as_scapy_reads_it(
    base: Packet, payload: bytes, as_the_kernel_sends: KernelSends, recomputed: Recomputed
) -> None:
    source, destination = ip_address(base.src).packed, ip_address(base.dst).packed
    headers, rest = icmp.build_echo_reply(
        source, destination, 77, 3, payload, hop_limit=9, traffic_class=0x2E
    )
    assert rest is payload
    assert headers.startswith(vnet.PLAIN)
    sent = as_the_kernel_sends(headers + payload)
    assert (sent.src, sent.dst) == (base.src, base.dst)
    assert (sent.ttl, sent.tos) == (9, 0x2E) if base is V4 else (sent.hlim, sent.tc) == (9, 0x2E)
    message = sent[ICMP] if base is V4 else sent[ICMPv6EchoReply]
    assert (message.type, message.code, message.id, message.seq) == (0 if base is V4 else 129, 0, 77, 3)
    assert (bytes(message.payload) if base is V4 else message.data) == payload
    assert recomputed(sent) == bytes(sent)


def test_a_reply_of_nothing_but_zeros_has_a_checksum_of_ones(as_the_kernel_sends: KernelSends) -> None:
    headers, _ = icmp.build_echo_reply(b"\x0a\0\0\1", b"\x0a\0\0\2", 0, 0, b"")
    assert as_the_kernel_sends(headers)[ICMP].chksum == 0xFFFF


@BOTH
def test_a_wrong_checksum_is_seen_unless_the_kernel_vouches(
    base: Packet, ip_packet: Parse, refusal: Refusal
) -> None:
    damaged = bytearray(bytes(echo_request(base, b"odd")))
    damaged[-1] ^= 1
    packet = ip_packet(bytes(damaged))
    assert refusal(lambda: icmp.parse(packet, checksum_trusted=False)) == "icmp-bad-checksum"
    assert icmp.parse(packet, checksum_trusted=True).sequence == 3


def test_the_checksum_of_icmpv6_covers_the_addresses(ip_packet: Parse, refusal: Refusal) -> None:
    moved = bytearray(bytes(echo_request(V6, b"data")))
    moved[39] ^= 1
    packet = ip_packet(bytes(moved))
    assert refusal(lambda: icmp.parse(packet, checksum_trusted=False)) == "icmp-bad-checksum"


@pytest.mark.parametrize(
    "packet",
    [
        V4 / ICMP(type="echo-reply"),
        V4 / ICMP(type="echo-request", code=1),
        V4 / ICMP(type="timestamp-request"),
        V4 / ICMP(type="dest-unreach", code=3) / IPerror() / UDPerror(),
        V6 / ICMPv6EchoReply(),
        V6 / ICMPv6EchoRequest(code=1),
        V6 / ICMPv6DestUnreach() / IPerror6() / UDPerror(),
    ],
    ids=lambda packet: packet.summary(),
)
def test_anything_but_an_echo_request(packet: Packet, ip_packet: Parse, refusal: Refusal) -> None:
    parsed = ip_packet(packet)
    assert refusal(lambda: icmp.parse(parsed, checksum_trusted=False)) == "icmp-not-echo"


@pytest.mark.parametrize(
    "header", [IP(src="10.0.0.1", dst="10.0.0.2", proto=1), IPv6(src="fd00::1", dst="fd00::2", nh=58)]
)
def test_less_than_a_header(header: Packet, ip_packet: Parse, refusal: Refusal) -> None:
    packet = ip_packet(header / Raw(bytes(7)))
    assert refusal(lambda: icmp.parse(packet, checksum_trusted=False)) == "icmp-too-short"


@given(st.sampled_from([4, 16]), st.binary(max_size=30), st.booleans())
def test_random_bytes_raise_nothing_but_packet_errors(size: int, data: bytes, trusted: bool) -> None:
    addresses = b"\x20" * size
    packet = ip.parse(memoryview(ip.build(addresses, addresses, 1 if size == 4 else 58, len(data)) + data))
    try:
        echo = icmp.parse(packet, checksum_trusted=trusted)
    except PacketError:
        return
    assert echo.payload == data[8:]


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "message_type", "code", "mtu"),
    [
        (IcmpErrorKind.NET_UNREACHABLE, 3, 0, 0),
        (IcmpErrorKind.HOST_UNREACHABLE, 3, 1, 0),
        (IcmpErrorKind.PROTOCOL_UNREACHABLE, 3, 2, 0),
        (IcmpErrorKind.PORT_UNREACHABLE, 3, 3, 0),
        (IcmpErrorKind.PACKET_TOO_BIG, 3, 4, 1400),
        (IcmpErrorKind.ADMIN_PROHIBITED, 3, 13, 0),
        (IcmpErrorKind.TIME_EXCEEDED, 11, 0, 0),
    ],
)
def test_every_error_of_ipv4_as_scapy_reads_it(
    kind: IcmpErrorKind,
    message_type: int,
    code: int,
    mtu: int,
    ip_packet: Parse,
    as_the_kernel_sends: KernelSends,
    recomputed: Recomputed,
) -> None:
    original = ip_packet(V4 / UDP(sport=1111, dport=2222) / Raw(b"question"))
    frame = icmp.build_error(original, kind, source=ROUTER_V4, mtu=1400)
    assert frame is not None
    sent = as_the_kernel_sends(frame)
    assert (sent.src, sent.dst, sent.tos) == ("10.0.0.254", "10.0.0.1", 0xC0)
    assert (sent[ICMP].type, sent[ICMP].code) == (message_type, code)
    assert int.from_bytes(bytes(sent[ICMP])[4:8], "big") == mtu
    assert (sent[IPerror].dst, sent[UDPerror].dport) == ("192.0.2.7", 2222)
    assert bytes(sent[ICMP].payload) == original.raw
    assert recomputed(sent) == bytes(sent)


@pytest.mark.parametrize(
    ("kind", "layer", "code", "rest"),
    [
        (IcmpErrorKind.NET_UNREACHABLE, ICMPv6DestUnreach, 0, 0),
        (IcmpErrorKind.ADMIN_PROHIBITED, ICMPv6DestUnreach, 1, 0),
        (IcmpErrorKind.HOST_UNREACHABLE, ICMPv6DestUnreach, 3, 0),
        (IcmpErrorKind.PORT_UNREACHABLE, ICMPv6DestUnreach, 4, 0),
        (IcmpErrorKind.PACKET_TOO_BIG, ICMPv6PacketTooBig, 0, 1400),
        (IcmpErrorKind.TIME_EXCEEDED, ICMPv6TimeExceeded, 0, 0),
        (IcmpErrorKind.PROTOCOL_UNREACHABLE, ICMPv6ParamProblem, 1, 6),
    ],
)
def test_every_error_of_ipv6_as_scapy_reads_it(
    kind: IcmpErrorKind,
    layer: type[Packet],
    code: int,
    rest: int,
    ip_packet: Parse,
    as_the_kernel_sends: KernelSends,
    recomputed: Recomputed,
) -> None:
    original = ip_packet(V6 / UDP(sport=1111, dport=2222) / Raw(b"question"))
    frame = icmp.build_error(original, kind, source=ROUTER_V6, mtu=1400)
    assert frame is not None
    sent = as_the_kernel_sends(frame)
    assert (sent.src, sent.dst) == ("fd00::fe", "fd00::1")
    assert sent[layer].code == code
    assert int.from_bytes(bytes(sent[layer])[4:8], "big") == rest
    assert (sent[IPerror6].dst, sent[UDPerror].dport) == ("2001:db8::7", 2222)
    assert bytes(sent[layer].payload) == original.raw
    assert recomputed(sent) == bytes(sent)


def test_an_unknown_protocol_is_pointed_at_behind_extension_headers(
    ip_packet: Parse, as_the_kernel_sends: KernelSends
) -> None:
    chain = IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt(nh=132)
    original = ip_packet(V6 / chain / Raw(b"an SCTP packet"))
    frame = icmp.build_error(original, IcmpErrorKind.PROTOCOL_UNREACHABLE, source=ROUTER_V6)
    assert frame is not None
    pointer = as_the_kernel_sends(frame)[ICMPv6ParamProblem].ptr
    assert pointer == 48
    assert original.raw[pointer] == 132


@pytest.mark.parametrize(
    ("base", "router", "limit"),
    [(V4, ROUTER_V4, icmp.MAX_ERROR_V4), (V6, ROUTER_V6, icmp.MAX_ERROR_V6)],
    ids=["v4", "v6"],
)
def test_a_long_packet_is_quoted_in_part(base: Packet, router: bytes, limit: int, ip_packet: Parse) -> None:
    original = ip_packet(base / UDP(sport=1, dport=2) / Raw(bytes(9000)))
    frame = icmp.build_error(original, IcmpErrorKind.PORT_UNREACHABLE, source=router)
    assert frame is not None
    assert len(frame) == vnet.VNET_HEADER_LENGTH + limit


def test_an_mtu_beyond_its_field_is_as_large_as_the_field_allows(
    ip_packet: Parse, as_the_kernel_sends: KernelSends
) -> None:
    original = ip_packet(V4 / UDP(sport=1, dport=2))
    frame = icmp.build_error(original, IcmpErrorKind.PACKET_TOO_BIG, source=ROUTER_V4, mtu=70000)
    assert frame is not None
    assert as_the_kernel_sends(frame)[ICMP].nexthopmtu == 65535


@pytest.mark.parametrize(
    "original",
    [
        V4 / ICMP(type="dest-unreach", code=3) / IPerror() / UDPerror(),
        V4 / ICMP(type="time-exceeded") / IPerror() / UDPerror(),
        V4 / ICMP(type="redirect") / IPerror() / UDPerror(),
        IP(src="10.0.0.1", dst="192.0.2.7", proto=1),
        IP(src="10.0.0.1", dst="192.0.2.7", proto=17, frag=3) / Raw(b"later"),
        IP(src="10.0.0.1", dst="224.0.0.251") / UDP(),
        IP(src="10.0.0.1", dst="255.255.255.255") / UDP(),
        V6 / ICMPv6DestUnreach() / IPerror6() / UDPerror(),
        V6 / ICMPv6PacketTooBig() / IPerror6() / UDPerror(),
        V6 / ICMPv6ND_Redirect(),
        IPv6(src="fd00::1", dst="2001:db8::7", nh=58),
        V6 / IPv6ExtHdrFragment(nh=17, offset=3) / Raw(b"later"),
        IPv6(src="fd00::1", dst="ff02::fb") / UDP(),
    ],
    ids=lambda packet: packet.summary(),
)
def test_packets_that_must_not_cause_an_error(original: Packet, ip_packet: Parse) -> None:
    parsed = ip_packet(original)
    source = ROUTER_V4 if parsed.version == 4 else ROUTER_V6
    for kind in IcmpErrorKind:
        assert icmp.build_error(parsed, kind, source=source) is None


@pytest.mark.parametrize(
    "original",
    [
        V4 / ICMP(type="echo-request"),
        V4 / TCP(sport=1, dport=2),
        IP(src="10.0.0.1", dst="192.0.2.7", proto=17, flags="MF") / Raw(bytes(8)),
        V6 / ICMPv6EchoRequest(),
        V6 / IPv6ExtHdrFragment(nh=17, m=1) / Raw(bytes(8)),
    ],
    ids=lambda packet: packet.summary(),
)
def test_packets_that_may(original: Packet, ip_packet: Parse) -> None:
    parsed = ip_packet(original)
    source = ROUTER_V4 if parsed.version == 4 else ROUTER_V6
    for kind in IcmpErrorKind:
        assert icmp.build_error(parsed, kind, source=source) is not None


def test_a_source_of_the_other_version_is_a_mistake_of_ours(ip_packet: Parse) -> None:
    original = ip_packet(V4 / UDP(sport=1, dport=2))
    with pytest.raises(ValueError, match="addresses of 16 and 4 bytes"):
        icmp.build_error(original, IcmpErrorKind.PORT_UNREACHABLE, source=ROUTER_V6)


def test_the_numbers_of_the_kinds_are_those_of_the_wire() -> None:
    assert [kind.value for kind in IcmpErrorKind] == [1, 2, 3, 4, 5, 6, 7]
