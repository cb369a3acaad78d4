"""Captures become records; scapy writes the captures."""

from __future__ import annotations

import random
import struct
from itertools import pairwise
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrHopByHop
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from scapy.utils import wrpcap

from halftunnel_vpn.audit.capture import from_segments, joined, tls_records
from halftunnel_vpn.audit.observation import Source
from halftunnel_vpn.audit.pcap import PcapReader, Segment
from halftunnel_vpn.errors import UsageError

CLIENT, EXIT = "192.0.2.10", "203.0.113.1"
HEAD = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)


def write(path: Path, packets: list[Packet]) -> bytes:
    for number, packet in enumerate(packets):
        packet.time = 1000.25 + number
    wrpcap(str(path), packets)
    return path.read_bytes()


def segment(
    sequence: int, payload: bytes, *, at: float = 0.0, up: bool = True, cut: int | None = None
) -> Segment:
    ends = ((b"\xc0\0\2\x0a", 40000), (b"\xcb\0\x71\1", 443))
    (source, source_port), (target, target_port) = ends if up else ends[::-1]
    return Segment(at, source, source_port, target, target_port, sequence, len(payload), payload[:cut])


def tls(size: int, kind: int = 23) -> bytes:
    return bytes((kind, 3, 3)) + size.to_bytes(2, "big") + bytes(size)


def test_segments_of_both_versions_are_read_and_others_are_counted(tmp_path: Path):
    data = write(
        tmp_path / "c.pcap",
        [
            Ether() / IP(src=CLIENT, dst=EXIT) / TCP(sport=40000, dport=443, seq=7) / Raw(b"hello"),
            Ether() / IPv6(src="2001:db8::1", dst="2001:db8::2") / TCP(sport=1, dport=2) / Raw(b"six"),
            Ether() / IPv6() / IPv6ExtHdrHopByHop() / TCP(sport=3, dport=4) / Raw(b"hops"),
            Ether() / IP() / UDP() / Raw(b"no"),
            Ether() / IP(src=CLIENT, dst=EXIT, frag=9) / Raw(b"a later fragment, no header"),
            Ether() / IP(src=CLIENT, dst=EXIT) / TCP(flags="A"),
        ],
    )
    reader = PcapReader()
    found = reader.feed(data)
    assert [(each.source_port, each.length, each.payload) for each in found] == [
        (40000, 5, b"hello"), (1, 3, b"six"), (3, 4, b"hops"), (20, 0, b"")
    ]  # fmt: skip
    assert found[0].at == pytest.approx(1000.25)
    assert found[0].sequence == 7
    assert reader.others == 2


def test_a_capture_may_come_in_any_pieces(tmp_path: Path):
    packets = [Ether() / IP() / TCP(sport=number) / Raw(bytes(number)) for number in range(1, 60)]
    data = write(tmp_path / "c.pcap", packets)
    draw = random.Random(3)
    reader, found, at = PcapReader(), [], 0
    while at < len(data):
        size = draw.randint(1, 90)
        found += reader.feed(data[at : at + size])
        at += size
    assert [each.length for each in found] == list(range(1, 60))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\x0a\x0d\x0d\x0a" + bytes(40), "pcapng"),
        (b"not a capture at all, is it", "neither"),
        (HEAD[:20] + struct.pack("<I", 127), "link type 127"),
        (HEAD + struct.pack("<IIII", 0, 0, 1 << 30, 1 << 30), "damaged"),
    ],
)
def test_what_is_no_capture_is_refused_in_one_sentence(data: bytes, problem: str):
    with pytest.raises(UsageError, match=problem):
        PcapReader().feed(data)


def test_damaged_frames_stop_nothing():
    draw = random.Random(5)
    good = bytes(Ether() / IP() / TCP() / Raw(b"x" * 40))
    for _ in range(2000):
        frame = bytearray(good[: draw.randrange(len(good))])
        for _ in range(draw.randrange(4)):
            if frame:
                frame[draw.randrange(len(frame))] = draw.randrange(256)
        PcapReader().feed(HEAD + struct.pack("<IIII", 1, 2, len(frame), len(frame)) + bytes(frame))


def test_tls_records_are_found_over_reordered_repeated_and_wrapping_segments():
    stream = tls(300, 22) + tls(1400) + tls(17) + tls(3000)
    start = (1 << 32) - 900
    cuts = [0, 3, 700, 1711, 1712, 2500, len(stream)]
    segments = [segment((start + a) % (1 << 32), stream[a:b], at=a / 1000) for a, b in pairwise(cuts)]
    order = [segments[place] for place in (0, 1, 3, 2, 2, 5, 4, 1)]
    found = tls_records(order, True, "1")
    assert found is not None
    assert [record.size for record in found] == [1400, 17, 3000]


def test_cut_frames_give_no_tls_records_and_are_joined_instead():
    segments = [
        segment(1, tls(3000)[:1448], at=1.0, cut=40),
        segment(1449, tls(3000)[1448:], at=1.0002, cut=40),
    ]
    segments.append(segment(4000, bytes(90), at=1.2, cut=40))
    assert tls_records(segments, True, "1") is None
    assert [record.size for record in joined(segments, True, "1")] == [3005, 90]
    assert tls_records([segment(1, b"GET / HTTP/1.1" + bytes(40))], True, "1") is None


def test_paths_are_told_apart_by_what_they_carry():
    def other(each: Segment) -> Segment:
        return each._replace(**{
            "source_port" if each.source_port == 40000 else "destination_port": 40001
        })  # fmt: skip

    up = [segment(1 + 2005 * number, tls(2000), at=number) for number in range(3)]
    replies = [segment(1, tls(30), at=1.5, up=False)]
    down = [other(segment(1 + 4005 * number, tls(4000), at=number + 0.1, up=False)) for number in range(3)]
    seen = from_segments([*up, *replies, *down], mode="split")
    assert (seen.source, seen.mode, seen.whole_records) == (Source.CAPTURE, "split", True)
    assert [record.size for record in seen.sent("A")] == [2000] * 3
    assert [record.size for record in seen.path("A") if not record.up] == [30]
    assert [record.size for record in seen.sent("B")] == [4000] * 3
    assert seen.records[0].at == 0.0


def test_only_connections_to_the_named_exit_are_looked_at():
    up = [segment(1 + 2005 * number, tls(2000), at=number) for number in range(3)]
    assert len(from_segments(up, servers=[(b"\xcb\0\x71\1", 443)]).records) == 3
    for server in ((b"\xcb\0\x71\1", 444), (b"\xcb\0\x71\2", None)):
        with pytest.raises(UsageError, match="no TCP connection"):
            from_segments(up, servers=[server])
