from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP, fragment
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    fragment6,
)
from scapy.packet import Packet, Raw

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.inet import fragments, ip, udp
from halftunnel_vpn.inet.fragments import FRAGMENT_COST, Reassembler

Parse = Callable[[Packet | bytes], ip.IpPacket]

V4 = IP(src="10.0.0.1", dst="192.0.2.7", id=77, ttl=9, tos=0x2E)
V6 = IPv6(src="fd00::1", dst="2001:db8::7", hlim=9, tc=0x2E)
PAYLOAD = bytes(range(256)) * 16


def v4_fragments(payload: bytes = PAYLOAD) -> list[ip.IpPacket]:
    made = fragment(V4 / UDP(sport=1111, dport=2222) / Raw(payload), fragsize=1024)
    return [ip.parse(memoryview(bytes(one))) for one in made]


def v6_fragments(payload: bytes = PAYLOAD) -> list[ip.IpPacket]:
    whole = V6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrFragment(id=77) / UDP(sport=1111, dport=2222) / Raw(payload)
    return [ip.parse(memoryview(bytes(one))) for one in fragment6(whole, 1280)]


BOTH = pytest.mark.parametrize("cut", [v4_fragments, v6_fragments], ids=["v4", "v6"])
Cut = Callable[[], list[ip.IpPacket]]


def piece(offset: int, length: int, *, more: bool, fill: int = 0, **fields: int) -> ip.IpPacket:
    """One IPv4 fragment of ``length`` bytes of ``fill`` at byte ``offset``."""
    header = IP(
        src="10.0.0.1", dst="192.0.2.7", proto=17, frag=offset // 8, flags="MF" if more else 0, **fields
    )
    return ip.parse(memoryview(bytes(header / Raw(bytes([fill]) * length))))


def v6_piece(following: int, offset: int, payload: bytes, *, more: bool) -> ip.IpPacket:
    header = V6 / IPv6ExtHdrFragment(nh=following, id=5, offset=offset // 8, m=more)
    return ip.parse(memoryview(bytes(header / Raw(payload))))


def feed(reassembler: Reassembler, *packets: ip.IpPacket, now: float = 0.0) -> ip.IpPacket | None:
    """Add the packets; what the last one completed. None of the others may complete anything."""
    for packet in packets[:-1]:
        assert reassembler.add(packet, now) is None
    return reassembler.add(packets[-1], now)


def drops(counters: Counters) -> dict[str, int]:
    return dict(counters.dropped)


# --- whole datagrams ----------------------------------------------------------------------------


@BOTH
def test_a_datagram_cut_by_scapy_comes_together(cut: Cut) -> None:
    counters = Counters()
    reassembler = Reassembler(counters)
    pieces = cut()
    assert len(pieces) > 3
    whole = feed(reassembler, *pieces)
    assert whole is not None
    assert whole.fragment is None
    assert (whole.source, whole.destination) == (pieces[0].source, pieces[0].destination)
    assert (whole.protocol, whole.hop_limit, whole.traffic_class) == (17, 9, 0x2E)
    datagram = udp.parse(whole, checksum_trusted=False)
    assert (datagram.source_port, datagram.destination_port) == (1111, 2222)
    assert datagram.payload == PAYLOAD
    assert (len(reassembler), reassembler.bytes_held, drops(counters)) == (0, 0, {})


@BOTH
@given(data=st.data())
def test_the_order_does_not_matter(cut: Cut, data: st.DataObject) -> None:
    order = data.draw(st.permutations(cut()))
    whole = feed(Reassembler(Counters()), *order)
    assert whole is not None
    assert udp.parse(whole, checksum_trusted=False).payload == PAYLOAD


def test_the_largest_datagram_of_ipv4() -> None:
    pieces = [
        ip.parse(memoryview(bytes(one)))
        for one in fragment(V4 / UDP(sport=1, dport=2) / Raw(bytes(65507)), fragsize=1480)
    ]
    whole = feed(Reassembler(Counters()), *pieces)
    assert whole is not None
    assert len(whole.raw) == 65535


def test_a_whole_packet_passes_as_it_is(ip_packet: Parse) -> None:
    reassembler = Reassembler(Counters())
    packet = ip_packet(V4 / UDP(sport=1, dport=2))
    assert reassembler.add(packet, 0.0) is packet
    assert reassembler.next_deadline is None


def test_datagrams_are_told_apart_by_all_that_names_them() -> None:
    counters = Counters()
    reassembler = Reassembler(counters)
    heads = [
        piece(0, 8, more=True, id=1),
        piece(0, 8, more=True, id=2),
        ip.parse(
            memoryview(bytes(IP(src="10.0.0.2", dst="192.0.2.7", id=1, proto=17, flags="MF") / Raw(bytes(8))))
        ),
        ip.parse(
            memoryview(bytes(IP(src="10.0.0.1", dst="192.0.2.8", id=1, proto=17, flags="MF") / Raw(bytes(8))))
        ),
        ip.parse(
            memoryview(
                bytes(IP(src="10.0.0.1", dst="192.0.2.7", id=1, proto=132, flags="MF") / Raw(bytes(8)))
            )
        ),
    ]
    for head in heads:
        assert reassembler.add(head, 0.0) is None
    assert len(reassembler) == 5
    whole = reassembler.add(piece(8, 3, more=False, fill=7, id=2), 0.0)
    assert whole is not None
    assert whole.payload == bytes(8) + b"\7\7\7"
    assert (len(reassembler), drops(counters)) == (4, {})


def test_in_ipv6_the_first_fragment_names_the_protocol() -> None:
    reassembler = Reassembler(Counters())
    whole = feed(reassembler, v6_piece(6, 8, b"tail", more=False), v6_piece(17, 0, bytes(8), more=True))
    assert whole is not None
    assert whole.protocol == 17


def test_extension_headers_inside_the_fragments_are_read() -> None:
    options = bytes(IPv6ExtHdrDestOpt(nh=17))
    whole = feed(
        Reassembler(Counters()),
        v6_piece(60, 0, options, more=True),
        v6_piece(60, 8, b"datagram", more=False),
    )
    assert whole is not None
    assert (whole.protocol, whole.header_length, whole.payload) == (17, 48, b"datagram")


# --- what senders do to us ----------------------------------------------------------------------


def test_an_exact_repetition_is_ignored() -> None:
    counters = Counters()
    reassembler = Reassembler(counters)
    head, tail = piece(0, 16, more=True), piece(24, 5, more=False)
    feed(reassembler, head, head, tail, tail)
    whole = reassembler.add(piece(16, 8, more=True), 0.0)
    assert whole is not None
    assert len(whole.payload) == 29
    assert (reassembler.bytes_held, drops(counters)) == (0, {"fragment-repeated": 2})


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param((0, 16, True), (0, 8, True), id="shorter"),
        pytest.param((0, 16, True), (0, 24, True), id="longer"),
        pytest.param((0, 24, True), (8, 8, True), id="inside"),
        pytest.param((0, 16, True), (8, 16, True), id="across the end"),
        pytest.param((0, 16, True), (8, 3, False), id="an end inside"),
        pytest.param((8, 16, True), (8, 16, False), id="the same, but the end"),
        pytest.param((8, 16, True, 1), (8, 16, True, 2), id="the same with other content"),
    ],
)
@pytest.mark.parametrize("swapped", [False, True], ids=["after", "before"])
def test_an_overlap_condemns_the_datagram(
    first: tuple[int, int, bool], second: tuple[int, int, bool], swapped: bool
) -> None:
    counters = Counters()
    reassembler = Reassembler(counters)
    pair = [
        piece(offset, length, more=more, fill=sum(fill))
        for offset, length, more, *fill in ((second, first) if swapped else (first, second))
    ]
    assert feed(reassembler, *pair) is None
    assert drops(counters) == {"fragment-overlap": 1}
    assert (len(reassembler), reassembler.bytes_held) == (1, FRAGMENT_COST)

    # RFC 5722: what comes later for the same datagram is lost too, until its time is over.
    assert feed(reassembler, piece(0, 32, more=True), piece(32, 1, more=False), now=29.0) is None
    assert drops(counters) == {"fragment-overlap": 1, "fragment-late": 2}
    whole = feed(reassembler, piece(0, 32, more=True), piece(32, 1, more=False), now=30.0)
    assert whole is not None
    assert drops(counters) == {"fragment-overlap": 1, "fragment-late": 2}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(piece(16, 8, more=False), piece(24, 8, more=True), id="data behind the end"),
        pytest.param(piece(16, 8, more=True), piece(8, 8, more=False), id="an end before data"),
        pytest.param(piece(16, 8, more=False), piece(8, 8, more=False), id="a second end before"),
        pytest.param(piece(16, 8, more=False), piece(32, 8, more=False), id="a second end behind"),
    ],
)
def test_ends_that_contradict_each_other(first: ip.IpPacket, second: ip.IpPacket) -> None:
    counters = Counters()
    reassembler = Reassembler(counters)
    assert feed(reassembler, first, second) is None
    assert drops(counters) == {"fragment-inconsistent": 1}
    assert reassembler.bytes_held == FRAGMENT_COST


def test_a_datagram_too_big_for_its_header() -> None:
    counters = Counters()
    assert Reassembler(counters).add(piece(65512, 4, more=False), 0.0) is None
    assert drops(counters) == {"fragment-too-big": 1}


def test_a_datagram_in_too_many_pieces() -> None:
    counters = Counters()
    reassembler = Reassembler(counters)
    feed(reassembler, *(piece(8 * n, 8, more=True) for n in range(fragments.MAX_FRAGMENTS)))
    assert drops(counters) == {}
    assert reassembler.add(piece(8 * fragments.MAX_FRAGMENTS, 8, more=False), 0.0) is None
    assert drops(counters) == {"fragment-too-many": 1}
    assert reassembler.bytes_held == FRAGMENT_COST


def test_fragments_inside_fragments() -> None:
    counters = Counters()
    inner = bytes(IPv6ExtHdrFragment(nh=17, id=6, m=1)) + bytes(8)
    reassembler = Reassembler(counters)
    assert (
        feed(reassembler, v6_piece(44, 0, inner, more=True), v6_piece(44, 16, b"tail ...", more=False))
        is None
    )
    assert drops(counters) == {"fragment-nested": 1}
    assert (len(reassembler), reassembler.bytes_held) == (0, 0)


def test_a_malformed_datagram_in_good_fragments() -> None:
    counters = Counters()
    unknown_option = bytes((17, 0, 0xC2, 4, 0, 0, 0, 0))
    reassembler = Reassembler(counters)
    pair = v6_piece(60, 0, unknown_option, more=True), v6_piece(60, 8, b"datagram", more=False)
    assert feed(reassembler, *pair) is None
    assert drops(counters) == {"ip-bad-extension": 1}
    assert (len(reassembler), reassembler.bytes_held) == (0, 0)


# --- bounds -------------------------------------------------------------------------------------


def test_who_waits_too_long_is_given_up() -> None:
    counters = Counters()
    reassembler = Reassembler(counters, timeout=30.0)
    reassembler.add(piece(0, 8, more=True, id=1), 100.0)
    reassembler.add(piece(0, 8, more=True, id=2), 110.0)
    reassembler.add(piece(8, 8, more=True, id=1), 120.0)
    assert reassembler.next_deadline == 130.0
    reassembler.expire(129.9)
    assert (len(reassembler), drops(counters)) == (2, {})
    reassembler.expire(130.0)
    assert (len(reassembler), drops(counters)) == (1, {"fragment-timeout": 1})
    assert reassembler.next_deadline == 140.0
    assert reassembler.add(piece(8, 8, more=False, id=2), 139.9) is not None
    assert (reassembler.next_deadline, reassembler.bytes_held) == (None, 0)


def test_a_late_fragment_begins_a_new_datagram() -> None:
    counters = Counters()
    reassembler = Reassembler(counters, timeout=30.0)
    reassembler.add(piece(0, 8, more=True, id=1, fill=1), 0.0)
    assert reassembler.add(piece(8, 8, more=False, id=1, fill=2), 30.0) is None
    assert drops(counters) == {"fragment-timeout": 1}
    whole = reassembler.add(piece(0, 8, more=True, id=1, fill=3), 31.0)
    assert whole is not None
    assert whole.payload == b"\3" * 8 + b"\2" * 8


def test_the_oldest_datagram_makes_room_in_a_full_table() -> None:
    counters = Counters()
    reassembler = Reassembler(counters, max_datagrams=2)
    feed(reassembler, *(piece(0, 8, more=True, id=number) for number in (1, 2, 3)))
    assert (len(reassembler), drops(counters)) == (2, {"fragment-evicted": 1})
    assert reassembler.add(piece(8, 8, more=False, id=3), 0.0) is not None
    assert reassembler.add(piece(8, 8, more=False, id=2), 0.0) is not None
    assert reassembler.add(piece(8, 8, more=False, id=1), 0.0) is None


def test_the_oldest_datagrams_make_room_when_memory_is_full() -> None:
    counters = Counters()
    cost = 1000 + 2 * FRAGMENT_COST
    reassembler = Reassembler(counters, max_bytes=3 * cost)
    feed(reassembler, *(piece(0, 1000, more=True, id=number) for number in (1, 2, 3)))
    assert (reassembler.bytes_held, drops(counters)) == (3 * cost, {})
    reassembler.add(piece(0, 1008, more=True, id=4), 0.0)
    assert (len(reassembler), drops(counters)) == (2, {"fragment-evicted": 2})
    assert reassembler.bytes_held == 2 * cost + 8


def test_a_datagram_larger_than_all_memory_evicts_itself() -> None:
    counters = Counters()
    reassembler = Reassembler(counters, max_bytes=1000)
    reassembler.add(piece(0, 2000, more=True), 0.0)
    assert (len(reassembler), reassembler.bytes_held) == (0, 0)
    assert drops(counters) == {"fragment-evicted": 1}


PIECES = st.builds(
    lambda offset, length, more, identification: (8 * offset, 8 * length, more or not offset, identification),
    st.integers(0, 12),
    st.integers(1, 4),
    st.booleans(),
    st.integers(1, 4),
)


@given(st.lists(st.tuples(PIECES, st.floats(0, 3)), max_size=40))
def test_whatever_comes_the_books_balance(steps: list[tuple[tuple[int, int, bool, int], float]]) -> None:
    counters = Counters()
    reassembler = Reassembler(counters, max_bytes=900, max_datagrams=3, timeout=10.0)
    now = 0.0
    for (offset, length, more, identification), pause in steps:
        now += pause
        whole = reassembler.add(piece(offset, length, more=more, id=identification), now)
        assert whole is None or (whole.fragment is None and not any(whole.payload))
        assert len(reassembler) <= 3
        assert 0 <= reassembler.bytes_held <= 900
        assert reassembler.next_deadline is None or now < reassembler.next_deadline <= now + 10.0
    reassembler.expire(now + 10.0)
    assert (len(reassembler), reassembler.bytes_held) == (0, 0)


@given(length=st.integers(9, 400), cuts=st.sets(st.integers(1, 50), min_size=1, max_size=8), data=st.data())
def test_any_cutting_in_any_order_with_repetitions_comes_together(
    length: int, cuts: set[int], data: st.DataObject
) -> None:
    content = bytes(n % 251 for n in range(length))
    inner = {8 * cut for cut in cuts if 8 * cut < length} or {8}
    pieces = []
    for start, end in itertools.pairwise([0, *sorted(inner), length]):
        header = IP(src="10.0.0.1", dst="192.0.2.7", id=9, frag=start // 8, flags="MF" if end < length else 0)
        pieces.append(ip.parse(memoryview(bytes(header / Raw(content[start:end])))))
    order = data.draw(st.permutations(pieces))
    twice = [one for one in order[:-1] for _ in range(2)]
    whole = feed(Reassembler(Counters()), *twice, order[-1])
    assert whole is not None
    assert whole.payload == content
