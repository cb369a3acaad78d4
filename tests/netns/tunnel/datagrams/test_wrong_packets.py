"""What no program sends: put into the TUN device by a packet socket, dropped there and counted by reason."""

from __future__ import annotations

import collections
import errno
import random
import socket
from collections.abc import Callable

import pytest
from lab.topology import CLIENT, TARGET_ADDRESS, TARGET_ADDRESS6
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_LSRR, IPOption_SSRR
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.packet import Packet, Raw

pytestmark = pytest.mark.root

ME, ME6 = "10.73.72.1", "fd48:5456:504e::1"

V4 = IP(src=ME, dst=TARGET_ADDRESS)
V6 = IPv6(src=ME6, dst=TARGET_ADDRESS6)


def changed(packet: Packet, at: int, value: int, *, length: int = 1) -> bytes:
    """The packet with some bytes overwritten; the IPv4 header checksum is not mended."""
    wire = bytearray(bytes(packet))
    wire[at : at + length] = value.to_bytes(length, "big")
    return bytes(wire)


def remade(wire: bytes) -> bytes:
    """The same IPv4 packet with the right header checksum."""
    header = 4 * (wire[0] & 15)
    words = sum(int.from_bytes(wire[at : at + 2], "big") for at in range(0, header, 2) if at != 10)
    while words >> 16:
        words = (words & 0xFFFF) + (words >> 16)
    return wire[:10] + (words ^ 0xFFFF).to_bytes(2, "big") + wire[12:]


BAD: list[tuple[str, bytes | Packet]] = [
    # the IPv4 header
    ("ip-too-short", b"E"),
    ("ip-too-short", bytes(V4 / UDP())[:19]),
    ("ip-bad-version", b"\x75" + bytes(V4 / UDP())[1:]),
    ("ip-bad-version", b"\x05" + bytes(60)),
    ("ip-bad-header-length", remade(changed(V4 / UDP(), 0, 0x44))),
    ("ip-bad-header-length", remade(changed(V4 / UDP(), 0, 0x4F))),
    ("ip-bad-checksum", changed(V4 / UDP() / b"x", 10, 0xDEAD, length=2)),
    ("ip-bad-checksum", IP(src=ME, dst=TARGET_ADDRESS, chksum=1) / UDP()),
    ("ip-bad-length", remade(changed(V4 / UDP(), 2, 900, length=2))),
    ("ip-bad-length", remade(changed(V4 / UDP(), 2, 10, length=2))),
    ("ip-source-route", IP(src=ME, dst=TARGET_ADDRESS, options=[IPOption_LSRR(routers=["9.9.9.9"])]) / UDP()),
    ("ip-source-route", IP(src=ME, dst=TARGET_ADDRESS, options=[IPOption_SSRR(routers=["9.9.9.9"])]) / UDP()),
    ("ip-bad-option", IP(src=ME, dst=TARGET_ADDRESS, options=b"\x07\x00\x04\x00") / UDP()),
    ("ip-bad-option", IP(src=ME, dst=TARGET_ADDRESS, options=b"\x07\x28\x04\x00") / UDP()),
    ("ip-bad-source", IP(src="224.0.0.5", dst=TARGET_ADDRESS) / UDP()),
    ("ip-bad-source", IP(src="255.255.255.255", dst=TARGET_ADDRESS) / UDP()),
    ("ip-bad-source", IP(src="127.0.0.1", dst=TARGET_ADDRESS) / UDP()),
    ("ip-bad-source", IP(src="0.0.0.0", dst=TARGET_ADDRESS) / UDP()),
    ("ip-bad-destination", IP(src=ME, dst="0.0.0.0") / UDP(dport=1)),
    ("ip-bad-fragment", IP(src=ME, dst=TARGET_ADDRESS, flags="MF", id=1, proto=17) / Raw(b"123")),
    ("ip-bad-fragment", IP(src=ME, dst=TARGET_ADDRESS, frag=8191, id=1, proto=17) / Raw(bytes(100))),
    # the IPv6 header and what follows it
    ("ip-too-short", bytes(V6 / UDP())[:39]),
    ("ip-bad-length", changed(V6 / UDP(), 4, 1000, length=2)),
    ("ip-bad-source", IPv6(src="ff02::1", dst=TARGET_ADDRESS6) / UDP()),
    ("ip-bad-source", IPv6(src="::1", dst=TARGET_ADDRESS6) / UDP()),
    ("ip-bad-source", IPv6(src="::ffff:10.0.0.1", dst=TARGET_ADDRESS6) / UDP()),
    ("ip-bad-destination", IPv6(src=ME6, dst="::") / UDP(dport=1)),
    ("ip-source-route", V6 / IPv6ExtHdrRouting(addresses=["2001:db8::9"]) / UDP()),
    ("ip-bad-extension", IPv6(src=ME6, dst=TARGET_ADDRESS6, nh=60) / Raw(b"\x11\x00\x01\x02")),
    ("ip-bad-extension", V6 / IPv6ExtHdrDestOpt() / IPv6ExtHdrHopByHop() / UDP()),
    ("ip-bad-extension", V6 / IPv6ExtHdrFragment(nh=44) / IPv6ExtHdrFragment(nh=17) / UDP()),
    # TCP
    ("tcp-too-short", IP(src=ME, dst=TARGET_ADDRESS, proto=6) / Raw(bytes(19))),
    ("tcp-bad-port", V4 / TCP(sport=40001, dport=0, flags="S")),
    ("tcp-bad-offset", V4 / TCP(sport=40001, dport=80, dataofs=3, flags="S")),
    ("tcp-bad-offset", V4 / TCP(sport=40001, dport=80, dataofs=15, flags="S")),
    ("tcp-bad-checksum", V4 / TCP(sport=40001, dport=80, flags="S", chksum=0x1234)),
    ("tcp-bad-checksum", V6 / TCP(sport=40001, dport=80, flags="S", chksum=0x1234)),
    ("tcp-bad-flags", V4 / TCP(sport=40001, dport=80, flags="SF")),
    ("tcp-bad-flags", V4 / TCP(sport=40001, dport=80, flags="SR")),
    ("tcp-bad-flags", V6 / TCP(sport=40001, dport=80, flags="")),
    ("tcp-bad-option", V4 / TCP(sport=40001, dport=80, flags="S", dataofs=6) / b"\x02\x00\x00\x00"),
    ("tcp-no-flow", V4 / TCP(sport=40002, dport=80, flags="A", seq=5, ack=7)),
    ("tcp-to-many", IP(src=ME, dst="224.0.0.9") / TCP(sport=40003, dport=80, flags="S")),
    ("tcp-to-many", IPv6(src=ME6, dst="ff0e::9") / TCP(sport=40003, dport=80, flags="S")),
    # UDP
    ("udp-too-short", IP(src=ME, dst=TARGET_ADDRESS, proto=17) / Raw(bytes(7))),
    ("udp-bad-length", V4 / UDP(sport=40001, dport=9, len=4)),
    ("udp-bad-length", V4 / UDP(sport=40001, dport=9, len=1000)),
    ("udp-bad-checksum", V4 / UDP(sport=40001, dport=9, chksum=0x1234) / b"x"),
    ("udp-zero-checksum", V6 / UDP(sport=40001, dport=9, chksum=0) / b"x"),
    ("udp-bad-port", V4 / UDP(sport=40001, dport=0)),
    ("udp-to-many", IP(src=ME, dst="224.0.0.251") / UDP(sport=40004, dport=5353)),
    ("udp-to-many", IP(src=ME, dst="255.255.255.255") / UDP(sport=40005, dport=67)),
    ("udp-to-many", IPv6(src=ME6, dst="ff02::fb") / UDP(sport=40004, dport=5353)),
    # ICMP
    ("icmp-too-short", IP(src=ME, dst=TARGET_ADDRESS, proto=1) / Raw(bytes(7))),
    ("icmp-bad-checksum", V4 / ICMP(chksum=1)),
    ("icmp-bad-checksum", V6 / ICMPv6EchoRequest(cksum=1)),
    ("icmp-not-echo", V4 / ICMP(type=13)),
    ("icmp-not-echo", V4 / ICMP(type=3, code=3) / IP(src=TARGET_ADDRESS, dst=ME) / UDP()),
    ("icmp-to-many", IP(src=ME, dst="224.0.0.1") / ICMP(id=7)),
    ("icmp-to-many", IPv6(src=ME6, dst="ff02::1") / ICMPv6EchoRequest(id=7)),
    # everything else
    ("ip-protocol-unreachable", IP(src=ME, dst=TARGET_ADDRESS, proto=132) / Raw(bytes(20))),
    ("ip-protocol-unreachable", IPv6(src=ME6, dst=TARGET_ADDRESS6, nh=132) / Raw(bytes(20))),
    ("ip-protocol-unreachable", IP(src=ME, dst="224.0.0.22", proto=2) / Raw(bytes(8))),
]


@pytest.fixture
def put(into_device) -> Callable[[bytes | Packet], None]:
    """Puts an IP packet, or what should be one, into the TUN device."""
    return lambda packet: into_device.send(bytes(packet))


@pytest.fixture
def settle(ends) -> Callable[[], None]:
    """Returns when the client has looked at everything that was put into the device before."""
    server = ends.server()
    app = ends.app(to=server)

    def wait() -> None:
        word = random.randbytes(8)
        app.send(word)
        received, sender = server.recvfrom(100)
        assert received == word
        server.sendto(word, sender)
        assert app.recv(100) == word

    return wait


@pytest.fixture
def newly_dropped(rig, settle) -> Callable[[], dict[str, int]]:
    """What was dropped since the test began, by reason."""
    settle()
    before = collections.Counter(rig.dropped())

    def drops() -> dict[str, int]:
        settle()
        return dict(collections.Counter(rig.dropped()) - before)

    return drops


def check_that_it_works(rig) -> None:
    for address in (TARGET_ADDRESS, TARGET_ADDRESS6):
        assert " 2 received" in rig.client(f"ping -n -c 2 -w 30 -i 0.1 {address}")
    assert len(rig.client(f"curl -sS http://{TARGET_ADDRESS}/small.txt")) == 1000
    assert rig.tunnel.status()["state"] == "connected"


def test_every_kind_of_malformed_packet_is_dropped_under_its_own_reason(rig, put, newly_dropped):
    for _, packet in BAD:
        put(packet)
    expected = collections.Counter(reason for reason, _ in BAD)
    drops = newly_dropped()
    # the client's kernel itself reports its multicast groups now and then
    drops["icmp-not-echo"] = min(drops["icmp-not-echo"], expected["icmp-not-echo"])
    assert drops == expected
    check_that_it_works(rig)


@pytest.mark.parametrize(
    ("family", "address", "told"),
    [
        (socket.AF_INET, TARGET_ADDRESS, errno.ENOPROTOOPT),
        (socket.AF_INET6, TARGET_ADDRESS6, errno.EPROTO),
    ],
    ids=["IPv4", "IPv6"],
)
def test_a_protocol_that_the_tunnel_does_not_carry_is_unreachable(ends, family, address, told):
    """Linux turns "protocol unreachable" and ICMPv6's parameter problem into these numbers."""
    sctp = ends.raw(CLIENT, family, socket.SOCK_RAW, socket.IPPROTO_SCTP)
    sctp.connect((address, 0))
    sctp.send(bytes(20))
    with pytest.raises(OSError) as caught:
        sctp.recv(100)
    assert caught.value.errno == told


def test_protocol_unreachable_quotes_the_packet(ends):
    listener = ends.raw(CLIENT, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    gre = ends.raw(CLIENT, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_GRE)
    gre.sendto(b"some payload of GRE", (TARGET_ADDRESS, 0))
    told = IP(listener.recv(2000))
    assert (told.src, told[ICMP].type, told[ICMP].code) == (TARGET_ADDRESS, 3, 2)
    quoted = IP(bytes(told[ICMP].payload))
    assert (quoted.src, quoted.dst, quoted.proto) == (ME, TARGET_ADDRESS, socket.IPPROTO_GRE)
    assert bytes(quoted.payload) == b"some payload of GRE"


def v4_fragment(identifier: int, offset: int, data: bytes, *, more: bool) -> Packet:
    flags = "MF" if more else 0
    return IP(src=ME, dst=TARGET_ADDRESS, id=identifier, proto=17, flags=flags, frag=offset // 8) / Raw(data)


def v6_fragment(identifier: int, offset: int, data: bytes, *, more: bool) -> Packet:
    return V6 / IPv6ExtHdrFragment(nh=17, id=identifier, m=int(more), offset=offset // 8) / Raw(data)


@pytest.mark.parametrize("piece", [v4_fragment, v6_fragment], ids=["IPv4", "IPv6"])
def test_fragments_that_contradict_each_other_condemn_their_datagram(rig, put, newly_dropped, piece):
    # overlapping; its last fragment comes too late to matter
    put(piece(1001, 0, bytes(800), more=True))
    put(piece(1001, 792, bytes(800), more=True))
    put(piece(1001, 1592, bytes(8), more=False))
    # two ends
    put(piece(1002, 1600, bytes(80), more=False))
    put(piece(1002, 800, bytes(8), more=False))
    # data behind the end
    put(piece(1003, 800, bytes(80), more=False))
    put(piece(1003, 1600, bytes(80), more=True))
    # the same twice
    put(piece(1004, 0, bytes(80), more=True))
    put(piece(1004, 0, bytes(80), more=True))
    # too many
    for number in range(129):
        put(piece(1005, 8 * number, bytes(8), more=True))
    assert newly_dropped() == {
        "fragment-overlap": 1,
        "fragment-late": 1,
        "fragment-inconsistent": 2,
        "fragment-repeated": 1,
        "fragment-too-many": 1,
    }
    check_that_it_works(rig)


def test_fragments_in_any_order_are_one_datagram(ends, put):
    server = ends.server(port=4321)
    data = random.randbytes(4000)
    whole = bytes(IP(src=ME, dst=TARGET_ADDRESS) / UDP(sport=40009, dport=4321) / Raw(data))[20:]
    pieces = [
        v4_fragment(2001, at, whole[at : at + 800], more=at + 800 < len(whole))
        for at in range(0, len(whole), 800)
    ]
    random.Random(7).shuffle(pieces)
    for piece in pieces:
        put(piece)
    assert server.recv(65535) == data


def test_a_flood_of_fragments_evicts_the_oldest_and_harms_nobody(rig, put, newly_dropped):
    for number in range(600):
        put(v4_fragment(3000 + number, 0, bytes(8), more=True))
    drops = newly_dropped()
    assert 600 - 256 <= drops.pop("fragment-evicted") <= 600
    assert not drops
    check_that_it_works(rig)
    assert " 2 received" in rig.client(f"ping -n -c 2 -w 30 -i 0.1 -s 4000 {TARGET_ADDRESS}")


def test_noise_of_every_sort_stops_nothing(rig, put, settle, newly_dropped):
    """Random bytes, and real packets with some bytes changed."""
    dice = random.Random(20)
    seeds = [
        bytes(V4 / TCP(sport=40010, dport=80, flags="S", options=[("MSS", 1460), ("WScale", 7)])),
        bytes(V6 / TCP(sport=40010, dport=80, flags="S", options=[("SAckOK", b"")])),
        bytes(V4 / UDP(sport=40011, dport=53) / Raw(bytes(30))),
        bytes(V6 / IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(4))]) / UDP(sport=40012, dport=53)),
        bytes(V4 / ICMP(id=40013) / Raw(bytes(30))),
        bytes(v6_fragment(9, 0, bytes(80), more=True)),
    ]
    for number in range(3000):
        if number % 3:
            wire = bytearray(dice.choice(seeds))
            for _ in range(dice.randint(1, 4)):
                wire[dice.randrange(len(wire))] = dice.randrange(256)
            if dice.random() < 0.3:
                del wire[dice.randrange(1, len(wire)) :]
            # with the right header checksum more of it gets through to the next floor
            put(remade(bytes(wire)) if len(wire) >= 20 and wire[0] == 0x45 else bytes(wire))
        else:
            put(dice.randbytes(dice.randint(1, 200)))
        if number % 200 == 0:
            settle()
    drops = newly_dropped()
    assert sum(drops.values()) > 1000
    assert len(drops) > 10
    check_that_it_works(rig)
