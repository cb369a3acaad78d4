from __future__ import annotations

import os
from ipaddress import ip_address

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6PacketTooBig,
    IPerror6,
    IPv6,
    UDPerror,
)
from scapy.packet import Raw

from halftunnel_vpn.flow.datagrams import MAX_PRIVATE
from halftunnel_vpn.flow.udp_flow import READER_SHARE, SOCKET_COST
from halftunnel_vpn.icmp_error import IcmpErrorKind
from halftunnel_vpn.inet import vnet
from halftunnel_vpn.protocol.datagram import (
    DataRun,
    ErrorRun,
    decode_run,
    encode_error,
    encode_run_header,
)
from halftunnel_vpn.protocol.stream_messages import ResetCode, StreamKind

ME, THERE = "10.73.72.1", "198.51.100.2"
ME6, THERE6 = "fd48::1", "2001:db8:100::2"


def raw(address: str) -> bytes:
    return ip_address(address).packed


def datagram(data: bytes = b"hello", *, sport: int = 4000, dport: int = 5000, **fields: object) -> IP:
    return IP(src=ME, dst=THERE, **fields) / UDP(sport=sport, dport=dport) / Raw(data)


def datagram6(data: bytes = b"hello", *, sport: int = 4000, dport: int = 5000) -> IPv6:
    return IPv6(src=ME6, dst=THERE6) / UDP(sport=sport, dport=dport) / Raw(data)


def segmented(packet: IP | IPv6, size: int) -> bytes:
    """The vnet header under which the kernel hands over several datagrams at once."""
    start = 20 if packet.version == 4 else 40
    return vnet.VnetHeader(vnet.NEEDS_CSUM, vnet.GSO_UDP_L4, start + 8, size, start, 6).encode()


# --- towards the exit -------------------------------------------------------------------------------


@pytest.mark.parametrize(("packet", "there"), [(datagram, THERE), (datagram6, THERE6)])
def test_a_datagram_opens_a_stream_and_is_a_run(world, packet, there):
    world.host_sends(packet(b"hello"))
    assert world.stream.request.kind is StreamKind.UDP
    (run,) = world.stream.sent
    assert decode_run(run) == DataRun(raw(there), 5000, 64, 0, 0, memoryview(b"hello"))
    assert world.tracker.counts.udp == 1


def test_one_local_port_is_one_stream_whatever_it_talks_to(world):
    world.host_sends(datagram(b"one", dport=1))
    world.host_sends(datagram(b"two", dport=2))
    world.host_sends(IP(src=ME, dst="9.9.9.9") / UDP(sport=4000, dport=3) / b"three")
    assert len(world.streams.opened) == 1
    runs = [decode_run(run) for run in world.stream.sent]
    assert [(run.address, run.port, bytes(run.data)) for run in runs] == [
        (raw(THERE), 1, b"one"),
        (raw(THERE), 2, b"two"),
        (raw("9.9.9.9"), 3, b"three"),
    ]


TRUSTED = vnet.VnetHeader(vnet.NEEDS_CSUM, vnet.GSO_NONE, 28, 0, 20, 6).encode()
TRUSTED6 = vnet.VnetHeader(vnet.NEEDS_CSUM, vnet.GSO_NONE, 48, 0, 40, 6).encode()


def batch(world, *packets: IP | IPv6) -> list[DataRun]:
    """What the exit gets when the host sends all of these at once."""
    for packet in packets:
        world.tracker.frame_arrived((TRUSTED if packet.version == 4 else TRUSTED6) + bytes(packet), world.now)
    world.tracker.flush(world.now)
    runs = [decode_run(run) for stream in world.streams.opened for run in stream.sent]
    for stream in world.streams.opened:
        stream.sent.clear()
    return runs


@pytest.mark.parametrize("make", [datagram, datagram6])
def test_datagrams_of_one_batch_travel_as_one_run(world, make):
    for _ in range(2):  # the first batch makes the path, the second one finds it
        (run,) = batch(world, *(make(bytes([number]) * 50) for number in range(100)))
        assert run.segment_size == 50 and run.port == 5000
        assert bytes(run.data) == b"".join(bytes([number]) * 50 for number in range(100))
    (alone,) = batch(world, make(b"alone"))
    assert alone.segment_size == 0 and bytes(alone.data) == b"alone"


def test_a_run_is_no_longer_than_allowed(world):
    few, many = 1400, 10
    runs = batch(world, *(datagram(bytes(few)) for _ in range(100)))
    assert sum(len(run.data) for run in runs) == 100 * few
    assert all(len(encode_run_header(raw(THERE), 5000)) + len(run.data) <= 65486 for run in runs)
    runs = batch(world, *(datagram(bytes(many)) for _ in range(300)))
    assert [len(run.data) // many for run in runs] == [128, 128, 44]


def test_the_order_within_a_flow_stays_whatever_the_sizes_and_destinations(world):
    for _ in range(2):
        sent = [
            datagram(b"aa"), datagram(b"bb"), datagram(b"c"), datagram(b""), datagram(b"dd", dport=9),
            datagram(b"ee", dport=9), datagram(b"ff"), datagram(b"gg", ttl=3), datagram(b"hh", tos=8),
        ]  # fmt: skip
        got = [
            (run.port, run.hop_limit, run.traffic_class, bytes(run.data[i : i + (run.segment_size or 99)]))
            for run in batch(world, *sent)
            for i in range(0, max(len(run.data), 1), run.segment_size or 99)
        ]
        assert got == [
            (packet[UDP].dport, packet.ttl, packet.tos, bytes(packet[UDP].payload)) for packet in sent
        ]


def test_two_flows_in_one_batch_each_make_their_run(world):
    packets = [datagram(b"%d" % (number % 2), sport=4000 + number % 2) for number in range(20)]
    assert sorted(bytes(run.data) for run in batch(world, *packets)) == [b"0" * 10, b"1" * 10]


def test_a_known_path_does_not_let_broken_frames_through(world):
    batch(world, datagram(b"known"))
    good = TRUSTED + bytes(datagram(b"known", id=7))
    wrong_sum = bytearray(good)
    wrong_sum[15] ^= 1  # of the identification
    for frame in (bytes(wrong_sum), good[:-1]):
        world.tracker.frame_arrived(frame, world.now)
    untrusted = bytearray(bytes(10) + good[10:])
    untrusted[-1] ^= 1  # of the payload, which nobody has vouched for
    world.tracker.frame_arrived(bytes(untrusted), world.now)
    world.tracker.frame_arrived(good + b"behind the packet", world.now)
    world.tracker.flush(world.now)
    assert [bytes(decode_run(run).data) for run in world.stream.sent] == [b"known"]
    assert world.counters.dropped == {"ip-bad-checksum": 1, "ip-bad-length": 1, "udp-bad-checksum": 1}


def test_a_path_ends_with_its_flow(world):
    batch(world, datagram(b"before"))
    world.stream.handler.aborted(ResetCode.SHUTDOWN, world.now)
    (run,) = batch(world, datagram(b"behind"))
    assert bytes(run.data) == b"behind" and len(world.streams.opened) == 2


def test_another_local_port_is_another_stream(world):
    world.host_sends(datagram(sport=1))
    world.host_sends(datagram(sport=2))
    assert len(world.streams.opened) == world.tracker.counts.udp == 2


def test_hop_limit_and_traffic_class_travel_along(world):
    world.host_sends(datagram(ttl=3, tos=0xB8))
    run = decode_run(world.stream.sent[0])
    assert (run.hop_limit, run.traffic_class) == (3, 0xB8)


@settings(max_examples=20)
@given(st.lists(st.integers(1, 65535), min_size=1, max_size=150))
@example(list(range(1, 150)))
def test_any_number_of_destinations_have_their_own_headers(new_world, ports):
    world = new_world(intercept_dns=False)
    for port in ports:
        world.host_sends(datagram(dport=port))
    assert [decode_run(run).port for run in world.stream.sent] == ports


def test_a_segmented_frame_is_one_run(world):
    packet = datagram(bytes(range(250)) * 10)
    world.host_sends(packet, segmented(packet, 1000))
    (run,) = world.stream.sent
    decoded = decode_run(run)
    assert decoded.segment_size == 1000
    assert bytes(decoded.data) == bytes(range(250)) * 10


@pytest.mark.parametrize("size", [1, 9, 500, 1400, 1472])
def test_a_segmented_frame_that_no_run_holds_becomes_several(world, size):
    data = os.urandom(65_507 if size > 100 else size * 500)
    packet = datagram(data)
    world.host_sends(packet, segmented(packet, size))
    runs = [decode_run(run) for run in world.stream.sent]
    assert len(runs) > 1
    assert b"".join(run.data for run in runs) == data
    assert all(len(run.data) % size == 0 for run in runs[:-1])


@pytest.mark.parametrize(
    ("packet", "longest"), [(datagram, 65_474), (datagram6, 65_462)], ids=["IPv4", "IPv6"]
)
def test_what_no_record_can_hold_is_told_to_the_host(world, packet, longest):
    world.host_sends(packet(bytes(longest)))
    assert len(world.stream.sent) == 1
    assert not world.frames
    world.host_sends(packet(bytes(longest + 1)))
    assert len(world.stream.sent) == 1
    told = world.host_gets()
    if told.version == 4:
        assert (told[ICMP].type, told[ICMP].code) == (3, 4)
        assert told[ICMP].nexthopmtu == 28 + longest
    else:
        assert told[ICMPv6PacketTooBig].mtu == 48 + longest
    assert world.dropped == {"udp-too-long": 1}


def test_a_fake_address_becomes_the_name(world):
    world.dns.names[raw(THERE)] = "www.example.org"
    world.host_sends(datagram())
    assert decode_run(world.stream.sent[0]).address == "www.example.org"


def test_a_name_that_no_packet_can_carry_is_counted(world):
    world.dns.names[raw(THERE)] = "127.1"
    world.host_sends(datagram())
    assert world.dropped == {"datagram-bad-name": 1}


# --- towards the host -------------------------------------------------------------------------------


@pytest.mark.parametrize(("packet", "there"), [(datagram, THERE), (datagram6, THERE6)])
def test_a_run_becomes_a_datagram_from_there(world, packet, there):
    world.host_sends(packet())
    world.exit_sends(encode_run_header(raw(there), 5000) + b"answer")
    got = world.host_gets()
    assert got.src == there
    assert (got[UDP].sport, got[UDP].dport, bytes(got[UDP].payload)) == (5000, 4000, b"answer")
    expected = got.copy()
    del expected[UDP].chksum
    assert bytes(expected) == bytes(got)


def test_anybody_may_answer(world):
    world.host_sends(datagram())
    world.exit_sends(encode_run_header(raw("192.0.2.99"), 7) + b"from a third party")
    got = world.host_gets()
    assert (got.src, got[UDP].sport) == ("192.0.2.99", 7)


NOT_REMOTE = ["169.254.169.254", "127.0.0.1", "168.63.129.16", "224.0.0.1", "0.0.0.0"]
PRIVATE = ["192.168.1.1", "10.0.0.9", "172.16.0.1", "100.64.0.1", "198.18.0.1"]
NOT_REMOTE6 = ["fe80::1", "::1", "fd00:ec2::254", "ff02::1"]
PRIVATE6 = ["fd00::1", "::ffff:192.168.1.1", "64:ff9b::c0a8:101", "2002:c0a8:101::1"]


@pytest.mark.parametrize(
    ("packet", "source"),
    [(datagram, source) for source in NOT_REMOTE + PRIVATE]
    + [(datagram6, source) for source in NOT_REMOTE6 + PRIVATE6],
)
def test_nobody_answers_from_an_address_of_the_lan_the_link_or_the_cloud(world, packet, source):
    world.host_sends(packet())
    world.exit_sends(encode_run_header(raw(source), 53) + b"believe me")
    assert not world.frames and world.dropped == {"udp-source-denied": 1}


def test_a_private_destination_beyond_the_exit_may_answer_once_asked(world):
    world.host_sends(IP(src=ME, dst="10.1.2.3") / UDP(sport=4000, dport=5000) / b"question")
    world.exit_sends(encode_run_header(raw("10.1.2.3"), 5000) + b"answer")
    assert world.host_gets().src == "10.1.2.3"
    world.frames.clear()
    world.exit_sends(encode_run_header(raw("10.1.2.4"), 5000) + b"another")
    assert not world.frames and world.dropped == {"udp-source-denied": 1}


def test_the_metadata_service_never_answers_through_the_tunnel(world):
    world.host_sends(IP(src=ME, dst="169.254.169.254") / UDP(sport=4000, dport=80) / b"question")
    world.exit_sends(encode_run_header(raw("169.254.169.254"), 80) + b"credentials")
    assert not world.frames and world.dropped == {"udp-source-denied": 1}


def test_private_destinations_of_a_flow_are_bounded(world):
    for number in range(MAX_PRIVATE + 1):
        world.host_sends(IP(src=ME, dst=f"10.1.2.{number + 1}") / UDP(sport=4000, dport=9) / b"x")
    world.frames.clear()
    world.exit_sends(encode_run_header(raw("10.1.2.1"), 9) + b"forgotten")
    assert not world.frames
    world.exit_sends(encode_run_header(raw("10.1.2.2"), 9) + b"remembered")
    assert world.host_gets().src == "10.1.2.2"


def test_a_run_of_several_is_one_segmented_frame(world):
    world.host_sends(datagram())
    world.exit_sends(encode_run_header(raw(THERE), 5000, segment_size=100) + bytes(350))
    header = vnet.parse(world.frames[0])
    assert (header.gso_type, header.gso_size) == (vnet.GSO_UDP_L4, 100)
    assert bytes(world.host_gets()[UDP].payload) == bytes(350)


def test_a_device_without_segmentation_gets_them_one_by_one(new_world):
    world = new_world(segments=False)
    world.host_sends(datagram())
    world.exit_sends(encode_run_header(raw(THERE), 5000, segment_size=100) + bytes(350))
    assert [len(world.host_gets()[UDP].payload) for _ in range(4)] == [100, 100, 100, 50]
    assert not world.frames


@pytest.mark.parametrize(("segments", "frames"), [(True, 1), (False, 40)])
def test_the_reader_of_many_datagrams_gets_its_turn(new_world, segments, frames):
    world = new_world(segments=segments)
    world.host_sends(datagram())
    for number in range(1, 5):
        world.exit_sends(encode_run_header(raw(THERE), 5000, segment_size=1200) + bytes(40 * 1200))
        assert world.gave_way_after == [frames * one for one in range(1, number + 1)]


def test_small_datagrams_share_a_turn_of_their_reader(world):
    world.host_sends(datagram())
    each = SOCKET_COST + 64
    for number in range(1, 3 * READER_SHARE // each):
        world.exit_sends(encode_run_header(raw(THERE), 5000) + bytes(64))
        assert len(world.gave_way_after) == number // -(-READER_SHARE // each)


def test_others_get_their_turn_when_the_road_has_enough(world):
    partial = vnet.VnetHeader(vnet.NEEDS_CSUM, vnet.GSO_NONE, 28, 0, 20, 6).encode()
    for number, (has_enough, times) in enumerate([(False, 0), (True, 1), (False, 1)]):
        if number:
            world.stream.has_enough = has_enough
        world.host_sends(datagram(b"load"), partial)
        assert len(world.stream.sent) == number + 1
        assert len(world.gave_way_after) == times


def test_a_run_from_a_name_comes_from_its_fake_address(world):
    world.dns.names[raw("198.18.0.7")] = "www.example.org"
    world.host_sends(datagram())
    world.exit_sends(encode_run_header("www.example.org", 5000) + b"answer")
    assert world.host_gets().src == "198.18.0.7"


@pytest.mark.parametrize("address", [raw(THERE6), "unheard-of.example.org"])
def test_a_run_that_no_packet_of_this_flow_can_carry_is_dropped(world, address):
    world.host_sends(datagram())
    world.exit_sends(encode_run_header(address, 5000) + b"answer")
    assert not world.frames
    assert world.dropped == {"udp-wrong-family": 1}


def test_a_malformed_run_is_dropped(world):
    world.host_sends(datagram())
    world.exit_sends(b"\x01\x04")
    assert world.dropped == {"datagram-truncated": 1}


# --- errors -----------------------------------------------------------------------------------------

V4_ERRORS = {
    IcmpErrorKind.NET_UNREACHABLE: (3, 0),
    IcmpErrorKind.HOST_UNREACHABLE: (3, 1),
    IcmpErrorKind.PORT_UNREACHABLE: (3, 3),
    IcmpErrorKind.ADMIN_PROHIBITED: (3, 13),
    IcmpErrorKind.TIME_EXCEEDED: (11, 0),
}


@pytest.mark.parametrize("kind", V4_ERRORS, ids=lambda kind: kind.name)
def test_an_error_quotes_what_the_host_had_sent(world, kind):
    world.host_sends(datagram())
    world.exit_sends(encode_error(ErrorRun(kind, raw("203.0.113.9"), raw(THERE), 5000)))
    told = world.host_gets()
    assert told.src == "203.0.113.9"
    assert (told[ICMP].type, told[ICMP].code) == V4_ERRORS[kind]
    quoted = told[ICMP].payload
    assert (quoted.src, quoted.dst) == (ME, THERE)
    assert (quoted.payload.sport, quoted.payload.dport) == (4000, 5000)


def test_an_error_over_ipv6(world):
    world.host_sends(datagram6())
    world.exit_sends(encode_error(ErrorRun(IcmpErrorKind.PORT_UNREACHABLE, raw(THERE6), raw(THERE6), 5000)))
    told = world.host_gets()
    assert told[ICMPv6DestUnreach].code == 4
    assert (told[IPerror6].src, told[IPerror6].dst) == (ME6, THERE6)
    assert (told[UDPerror].sport, told[UDPerror].dport) == (4000, 5000)


def test_the_mtu_of_a_narrow_link_is_told(world):
    world.host_sends(datagram())
    error = ErrorRun(IcmpErrorKind.PACKET_TOO_BIG, raw("203.0.113.9"), raw(THERE), 5000, 1280)
    world.exit_sends(encode_error(error))
    assert world.host_gets()[ICMP].nexthopmtu == 1280


@pytest.mark.parametrize("offender", [b"", raw(THERE6)])
def test_an_error_that_nobody_of_this_version_sent_seems_to_come_from_the_destination(world, offender):
    world.host_sends(datagram())
    world.exit_sends(encode_error(ErrorRun(IcmpErrorKind.HOST_UNREACHABLE, offender, raw(THERE), 5000)))
    assert world.host_gets().src == THERE


def test_an_error_about_a_name_is_about_its_fake_address(world):
    world.dns.names[raw("198.18.0.7")] = "www.example.org"
    world.host_sends(datagram())
    world.exit_sends(encode_error(ErrorRun(IcmpErrorKind.PORT_UNREACHABLE, b"", "www.example.org", 5000)))
    assert world.host_gets()[ICMP].payload.dst == "198.18.0.7"


def test_no_error_is_sent_about_a_multicast_destination(world):
    world.host_sends(datagram())
    world.exit_sends(encode_error(ErrorRun(IcmpErrorKind.PORT_UNREACHABLE, b"", raw("224.0.0.9"), 5000)))
    assert not world.frames


def test_an_error_about_what_nobody_can_have_sent_is_dropped(world):
    world.host_sends(datagram())
    world.exit_sends(encode_error(ErrorRun(IcmpErrorKind.PORT_UNREACHABLE, b"", bytes(4), 5000)))
    assert not world.frames
    assert world.dropped == {"ip-bad-destination": 1}


# --- the end ----------------------------------------------------------------------------------------


def test_an_idle_flow_is_forgotten_and_its_stream_closed(new_world):
    world = new_world(udp_idle=300.0)
    world.host_sends(datagram())
    world.pass_time(299)
    assert world.tracker.counts.udp == 1
    world.pass_time(1.1)
    assert world.tracker.counts.udp == 0
    assert world.stream.is_closed
    assert world.counters.counted["udp-flows-idle"] == 1


def test_traffic_in_either_direction_keeps_it(new_world):
    world = new_world(udp_idle=300.0)
    world.host_sends(datagram())
    world.pass_time(200)
    world.host_sends(datagram())
    world.pass_time(200)
    world.exit_sends(encode_run_header(raw(THERE), 5000) + b"answer")
    world.pass_time(299)
    assert world.tracker.counts.udp == 1
    world.pass_time(2)
    assert world.tracker.counts.udp == 0


def test_a_port_that_only_asks_dns_is_forgotten_sooner(new_world):
    world = new_world(intercept_dns=False, udp_idle=300.0)
    world.host_sends(datagram(sport=1, dport=53))
    world.host_sends(datagram(sport=2, dport=53))
    world.host_sends(datagram(sport=2, dport=54))
    world.pass_time(18)
    assert world.tracker.counts.udp == 1
    world.pass_time(283)
    assert world.tracker.counts.udp == 0


@pytest.mark.parametrize("end", ["aborted", "refused"])
def test_the_next_datagram_opens_a_new_stream_after_the_exit_has_ended_one(world, end):
    world.host_sends(datagram())
    getattr(world.stream.handler, end)(ResetCode.LIMIT, world.now)
    assert world.tracker.counts.udp == 0
    assert world.dropped == ({"udp-refused": 1} if end == "refused" else {})
    world.host_sends(datagram())
    assert len(world.streams.opened) == 2


def test_nothing_is_left_to_fire_after_the_end(world):
    world.host_sends(datagram())
    world.stream.handler.aborted(ResetCode.NORMAL, world.now)
    assert world.wheel.next_deadline is None


def test_without_a_session_a_datagram_is_dropped(world):
    world.streams.is_there = False
    world.host_sends(datagram())
    assert world.tracker.counts.udp == 0
    assert world.dropped == {"udp-no-session": 1}
    assert world.wheel.next_deadline is None


def test_flows_are_bounded(new_world):
    world = new_world(max_udp_flows=2)
    for port in (1, 2, 3):
        world.host_sends(datagram(sport=port))
    assert world.tracker.counts.udp == 2
    assert world.dropped == {"udp-too-many-flows": 1}


@pytest.mark.parametrize("destination", ["224.0.0.251", "255.255.255.255", "240.0.0.1", ME])
def test_what_is_for_many_or_for_the_host_itself_is_not_carried(world, destination):
    world.host_sends(IP(src=ME, dst=destination) / UDP(sport=1, dport=2))
    assert not world.streams.opened
    assert world.dropped == {"udp-to-many": 1}


@pytest.mark.parametrize("destination", ["ff02::fb", "fe80::1", ME6])
def test_the_same_for_ipv6(world, destination):
    world.host_sends(IPv6(src=ME6, dst=destination) / UDP(sport=1, dport=2))
    assert not world.streams.opened
    assert world.dropped == {"udp-to-many": 1}
