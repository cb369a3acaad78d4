from __future__ import annotations

import struct
from collections.abc import Callable
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw

from halftunnel_vpn.errors import PacketError
from halftunnel_vpn.inet import ip, tcp, vnet

Parse = Callable[[Packet | bytes], ip.IpPacket]
Refusal = Callable[[Callable[[], object]], str]

V4 = IP(src="10.0.0.1", dst="192.0.2.7")
V6 = IPv6(src="fd00::1", dst="2001:db8::7")
BOTH = pytest.mark.parametrize("base", [V4, V6], ids=["v4", "v6"])
SEQUENCES = st.integers(0, tcp.SEQUENCE_MASK)


def segment_of(packet: ip.IpPacket) -> tcp.TcpSegment:
    return tcp.parse(packet, checksum_trusted=False)


def template_for(base: Packet, hop_limit: int = 64) -> tcp.HeaderTemplate:
    source, destination = ip_address(base.src).packed, ip_address(base.dst).packed
    return tcp.HeaderTemplate(source, 443, destination, 50000, hop_limit=hop_limit)


def with_options(options: bytes, flags: int = tcp.SYN) -> bytes:
    """An IPv4 packet with a segment without a checksum, with these options as they are."""
    header = struct.pack(">HHIIBBHHH", 1, 2, 3, 4, (20 + len(options)) << 2, flags, 5, 0, 0)
    return ip.build(b"\x0a\0\0\1", b"\x0a\0\0\2", 6, len(header + options)) + header + options


# --- parsing ------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("payload", [b"", b"even", b"odd"])
def test_a_segment_without_options(base: Packet, payload: bytes, ip_packet: Parse) -> None:
    made = base / TCP(sport=50000, dport=443, seq=0xFFFFFFFE, ack=7, flags="PA", window=501) / Raw(payload)
    segment = segment_of(ip_packet(made))
    assert (segment.source_port, segment.destination_port) == (50000, 443)
    assert (segment.sequence, segment.acknowledgement) == (0xFFFFFFFE, 7)
    assert segment.flags == tcp.PSH | tcp.ACK
    assert segment.window == 501
    assert segment.payload == payload
    assert (segment.mss, segment.window_scale) == (None, None)
    assert (segment.sack_permitted, segment.sack_blocks) == (False, ())
    assert repr(segment) == (
        f"<TcpSegment 50000 -> 443 [PA] seq 4294967294 ack 7 win 501, {len(payload)} bytes>"
    )


@BOTH
def test_the_syn_of_a_linux(base: Packet, ip_packet: Parse) -> None:
    options = [("MSS", 1440), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 7)]
    segment = segment_of(ip_packet(base / TCP(sport=1, dport=2, flags="SEC", options=options)))
    assert segment.flags == tcp.SYN | tcp.ECE | tcp.CWR
    assert (segment.mss, segment.window_scale, segment.sack_permitted) == (1440, 7, True)
    assert segment.sack_blocks == ()


@BOTH
def test_selective_acknowledgements(base: Packet, ip_packet: Parse) -> None:
    edges = (1000, 2000, 4294967000, 10, 30, 40)
    options = [("NOP", None), ("NOP", None), ("SAck", edges)]
    segment = segment_of(ip_packet(base / TCP(sport=1, dport=2, flags="A", options=options) / Raw(b"data")))
    assert segment.sack_blocks == ((1000, 2000), (4294967000, 10), (30, 40))
    assert segment.payload == b"data"


def test_what_belongs_into_a_syn_counts_only_there(ip_packet: Parse) -> None:
    options = [("MSS", 536), ("SAckOK", b""), ("WScale", 3)]
    segment = segment_of(ip_packet(V4 / TCP(sport=1, dport=2, flags="A", options=options)))
    assert (segment.mss, segment.window_scale, segment.sack_permitted) == (None, None, False)
    opening = segment_of(ip_packet(V4 / TCP(sport=1, dport=2, flags="S", options=[("SAck", (1, 2))])))
    assert opening.sack_blocks == ()


def test_window_scales_beyond_14_are_14(ip_packet: Parse) -> None:
    segment = segment_of(ip_packet(V4 / TCP(sport=1, dport=2, flags="S", options=[("WScale", 200)])))
    assert segment.window_scale == tcp.MAX_WINDOW_SCALE


@pytest.mark.parametrize(
    "options",
    [
        pytest.param("00ffffff", id="whatever follows the end"),
        pytest.param("01010101", id="only padding"),
        pytest.param("fd081234567890ab", id="unknown"),
        pytest.param("fe020101", id="unknown and empty"),
    ],
)
def test_options_that_mean_nothing_to_us(options: str, ip_packet: Parse) -> None:
    packet = ip_packet(with_options(bytes.fromhex(options)))
    segment = tcp.parse(packet, checksum_trusted=True)
    assert (segment.mss, segment.window_scale, segment.sack_permitted) == (None, None, False)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param("02000000", id="length 0"),
        pytest.param("fd010101", id="length 1"),
        pytest.param("01010102", id="no length"),
        pytest.param("010103030708fd05", id="longer than the header"),
        pytest.param("0203050a", id="MSS of 3 bytes"),
        pytest.param("03040700", id="window scale of 4 bytes"),
        pytest.param("04030000", id="SACK permitted of 3 bytes"),
        pytest.param("05020101", id="SACK without blocks"),
        pytest.param("050600000001" + "0101", id="SACK of half a block"),
    ],
)
def test_malformed_options(options: str, ip_packet: Parse, refusal: Refusal) -> None:
    packet = ip_packet(with_options(bytes.fromhex(options)))
    assert refusal(lambda: tcp.parse(packet, checksum_trusted=True)) == "tcp-bad-option"


@BOTH
@pytest.mark.parametrize("payload", [b"even", b"odd"])
def test_a_wrong_checksum_is_seen_unless_the_kernel_vouches(
    base: Packet, payload: bytes, ip_packet: Parse, refusal: Refusal
) -> None:
    damaged = bytearray(bytes(base / TCP(sport=1, dport=2, flags="A") / Raw(payload)))
    damaged[-1] ^= 1
    packet = ip_packet(bytes(damaged))
    assert refusal(lambda: segment_of(packet)) == "tcp-bad-checksum"
    assert tcp.parse(packet, checksum_trusted=True).payload == bytes(damaged[-len(payload) :])


@pytest.mark.parametrize("flags", ["S", "SP", "SA", "SAEC", "A", "PA", "AU", "PAU", "FA", "FPA", "R", "RA"])
def test_flags_of_sane_senders(flags: str, ip_packet: Parse) -> None:
    segment = segment_of(ip_packet(V4 / TCP(sport=1, dport=2, flags=flags)))
    assert segment.flags == int(TCP(flags=flags).flags)


@pytest.mark.parametrize(
    "flags", ["", "F", "P", "U", "FPU", "SF", "SFA", "SR", "RF", "RFA", "FSRPAUEC", "EC"]
)
def test_flags_of_port_scanners(flags: str, ip_packet: Parse, refusal: Refusal) -> None:
    packet = ip_packet(V4 / TCP(sport=1, dport=2, flags=flags))
    assert refusal(lambda: segment_of(packet)) == "tcp-bad-flags"


@pytest.mark.parametrize(("source", "destination"), [(0, 80), (80, 0)])
def test_port_zero(source: int, destination: int, ip_packet: Parse, refusal: Refusal) -> None:
    packet = ip_packet(V4 / TCP(sport=source, dport=destination, flags="S"))
    assert refusal(lambda: segment_of(packet)) == "tcp-bad-port"


@pytest.mark.parametrize("words", [0, 4, 6, 15])
def test_offsets_that_cannot_be(words: int, ip_packet: Parse, refusal: Refusal) -> None:
    packet = ip_packet(V4 / TCP(sport=1, dport=2, dataofs=words) / Raw(b"abc"))
    assert refusal(lambda: segment_of(packet)) == "tcp-bad-offset"


@pytest.mark.parametrize("length", [0, 19])
def test_less_than_a_header(length: int, ip_packet: Parse, refusal: Refusal) -> None:
    packet = ip_packet(IP(src="10.0.0.1", dst="10.0.0.2", proto=6) / Raw(bytes(length)))
    assert refusal(lambda: segment_of(packet)) == "tcp-too-short"


@given(
    st.binary(max_size=70),
    st.sampled_from([None, tcp.SYN, tcp.ACK]),
    st.sampled_from([None, 5, 6, 9, 15]),
    st.booleans(),
)
def test_random_bytes_raise_nothing_but_packet_errors(
    noise: bytes, flags: int | None, words: int | None, trusted: bool
) -> None:
    data = bytearray(noise)
    if flags is not None and words is not None and len(data) > 13:
        data[12:14] = bytes((words << 4, flags))
    packet = ip.parse(memoryview(ip.build(b"\x0a\0\0\1", b"\x0a\0\0\2", 6, len(data)) + data))
    try:
        segment = tcp.parse(packet, checksum_trusted=trusted)
    except PacketError:
        return
    assert bytes(segment.payload) == bytes(data[data[12] >> 4 << 2 :])


# --- building -----------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("payload", [b"", b"even", b"odd"])
def test_a_frame_as_scapy_reads_it(
    base: Packet,
    payload: bytes,
    as_the_kernel_sends: Callable[[bytes], Packet],
    recomputed: Callable[[Packet], bytes],
) -> None:
    frame = template_for(base, hop_limit=9).build(
        0x89ABCDEF, 0x01234567, tcp.PSH | tcp.ACK, 0xFEDC, len(payload)
    )
    sent = as_the_kernel_sends(frame + payload)
    assert (sent.src, sent.dst) == (base.src, base.dst)
    assert (sent.ttl if sent.version == 4 else sent.hlim) == 9
    assert (sent[TCP].sport, sent[TCP].dport) == (443, 50000)
    assert (sent[TCP].seq, sent[TCP].ack) == (0x89ABCDEF, 0x01234567)
    assert (str(sent[TCP].flags), sent[TCP].window, sent[TCP].urgptr) == ("PA", 0xFEDC, 0)
    assert bytes(sent[TCP].payload) == payload
    assert recomputed(sent) == bytes(sent)


@BOTH
def test_a_syn_with_options_as_scapy_reads_it(
    base: Packet, as_the_kernel_sends: Callable[[bytes], Packet], recomputed: Callable[[Packet], bytes]
) -> None:
    options = tcp.encode_options(mss=1460, window_scale=10, sack_permitted=True)
    sent = as_the_kernel_sends(template_for(base).build(1, 2, tcp.SYN | tcp.ACK, 65535, 0, options=options))
    read = dict(sent[TCP].options)
    assert (read["MSS"], read["WScale"], read["SAckOK"]) == (1460, 10, b"")
    assert sent[TCP].dataofs == 5 + len(options) // 4
    assert recomputed(sent) == bytes(sent)


def test_ipv4_is_sent_as_an_atomic_datagram(as_the_kernel_sends: Callable[[bytes], Packet]) -> None:
    sent = as_the_kernel_sends(template_for(V4).build(1, 2, tcp.ACK, 3, 0))
    assert (sent.id, str(sent.flags), sent.tos) == (0, "DF", 0)


@pytest.mark.parametrize(
    ("base", "gso_type", "ip_length"),
    [(V4, vnet.GSO_TCPV4, 20), (V6, vnet.GSO_TCPV6, 40)],
    ids=["v4", "v6"],
)
def test_a_large_frame_asks_the_kernel_to_cut_it(
    base: Packet,
    gso_type: int,
    ip_length: int,
    as_the_kernel_sends: Callable[[bytes], Packet],
    recomputed: Callable[[Packet], bytes],
) -> None:
    template = template_for(base)
    payload = bytes(60001)
    frame = template.build(1, 2, tcp.ACK, 3, len(payload), gso_size=1400)
    assert vnet.parse(frame) == (vnet.NEEDS_CSUM, gso_type, ip_length + 20, 1400, ip_length, 16)
    sent = as_the_kernel_sends(frame + payload)
    assert recomputed(sent) == bytes(sent)
    assert template.build(1, 2, tcp.ACK, 3, len(payload), gso_size=1400) == frame

    options = tcp.encode_options(sack_blocks=[(5, 6)])
    other = template.build(1, 2, tcp.ACK, 3, 1201, gso_size=1200, options=options)
    assert vnet.parse(other) == (vnet.NEEDS_CSUM, gso_type, ip_length + 32, 1200, ip_length, 16)
    assert template.build(1, 2, tcp.ACK, 3, len(payload), gso_size=1400) == frame


@BOTH
@pytest.mark.parametrize(("length", "gso_size"), [(1400, 1400), (0, 1400), (1400, 0), (1399, 1400)])
def test_a_frame_that_is_one_segment_is_not_cut(base: Packet, length: int, gso_size: int) -> None:
    frame = template_for(base).build(1, 2, tcp.ACK, 3, length, gso_size=gso_size)
    header = vnet.parse(frame)
    ip_length = 20 if base is V4 else 40
    assert (header.flags, header.gso_type, header.gso_size) == (vnet.NEEDS_CSUM, vnet.GSO_NONE, 0)
    assert (header.csum_start, header.csum_offset) == (ip_length, 16)


@given(
    base=st.sampled_from([V4, V6]),
    sequence=SEQUENCES,
    acknowledgement=SEQUENCES,
    flags=st.sampled_from([tcp.SYN, tcp.SYN | tcp.ACK, tcp.ACK, tcp.FIN | tcp.ACK, tcp.RST | tcp.ACK]),
    window=st.integers(0, 65535),
    payload=st.binary(max_size=30),
    mss=st.none() | st.integers(0, 65535),
    window_scale=st.none() | st.integers(0, 14),
    sack_permitted=st.booleans(),
    sack_blocks=st.lists(st.tuples(SEQUENCES, SEQUENCES), max_size=3),
)
def test_what_is_built_is_read_back(
    base: Packet,
    sequence: int,
    acknowledgement: int,
    flags: int,
    window: int,
    payload: bytes,
    mss: int | None,
    window_scale: int | None,
    sack_permitted: bool,
    sack_blocks: list[tuple[int, int]],
) -> None:
    opening = bool(flags & tcp.SYN)
    if opening:
        options = tcp.encode_options(mss, window_scale, sack_permitted)
    else:
        options = tcp.encode_options(sack_blocks=sack_blocks)
    assert len(options) % 4 == 0
    frame = template_for(base).build(sequence, acknowledgement, flags, window, len(payload), options=options)
    packet = ip.parse(memoryview(frame + payload)[vnet.VNET_HEADER_LENGTH :])
    segment = tcp.parse(packet, checksum_trusted=vnet.parse(frame).checksum_trusted)
    assert (segment.source_port, segment.destination_port) == (443, 50000)
    assert (segment.sequence, segment.acknowledgement) == (sequence, acknowledgement)
    assert (segment.flags, segment.window, segment.payload) == (flags, window, payload)
    assert segment.mss == (mss if opening else None)
    assert segment.window_scale == (window_scale if opening else None)
    assert segment.sack_permitted == (opening and sack_permitted)
    assert segment.sack_blocks == (() if opening else tuple(sack_blocks))


def test_only_so_many_selective_acknowledgements_have_room() -> None:
    blocks = [(n, n + 1) for n in range(9)]
    alone = tcp.encode_options(sack_blocks=blocks)
    assert len(alone) == 36
    beside = tcp.encode_options(mss=1460, sack_permitted=True, sack_blocks=blocks)
    assert len(beside) == 36
    assert beside[-24:] == b"".join(struct.pack(">II", *block) for block in blocks[:3])
    assert tcp.encode_options() == b""


def test_a_template_wants_addresses_of_one_version() -> None:
    with pytest.raises(ValueError, match="addresses of 4 and 16 bytes"):
        tcp.HeaderTemplate(bytes(4), 1, bytes(16), 2)


@BOTH
def test_a_payload_that_no_frame_can_hold_is_a_mistake_of_ours(base: Packet) -> None:
    with pytest.raises(struct.error):
        template_for(base).build(1, 2, tcp.ACK, 3, 65535, gso_size=1400)


# --- sequence numbers ---------------------------------------------------------------------------


def test_sequence_numbers_go_round() -> None:
    assert tcp.seq_lt(0xFFFFFFF0, 5)
    assert not tcp.seq_lt(5, 0xFFFFFFF0)
    assert not tcp.seq_lt(5, 5)
    assert tcp.seq_diff(5, 0xFFFFFFF0) == 21
    assert tcp.seq_diff(0xFFFFFFF0, 5) == -21
    assert tcp.seq_diff(0x80000000, 0) == -0x80000000


@given(SEQUENCES, st.integers(-(2**31) + 1, 2**31 - 1))
def test_every_distance_is_found_again(start: int, distance: int) -> None:
    there = (start + distance) & tcp.SEQUENCE_MASK
    assert tcp.seq_diff(there, start) == distance
    assert tcp.seq_lt(start, there) == (distance > 0)
