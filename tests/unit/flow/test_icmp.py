from __future__ import annotations

from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
)
from scapy.packet import Raw

from halftunnel_vpn.icmp_error import IcmpErrorKind
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


def echo(data: bytes = b"ping", *, identifier: int = 7, sequence: int = 1, **fields: object) -> IP:
    return IP(src=ME, dst=THERE, **fields) / ICMP(id=identifier, seq=sequence) / Raw(data)


def echo6(data: bytes = b"ping", *, identifier: int = 7, sequence: int = 1) -> IPv6:
    return IPv6(src=ME6, dst=THERE6, hlim=9) / ICMPv6EchoRequest(id=identifier, seq=sequence, data=data)


def test_an_echo_request_is_a_run_with_its_sequence_number(world):
    world.host_sends(echo(b"ping", sequence=3, ttl=5))
    assert world.stream.request.kind is StreamKind.ICMP
    assert decode_run(world.stream.sent[0]) == DataRun(raw(THERE), 3, 5, 0, 0, memoryview(b"ping"))
    world.host_sends(echo6(b"ping6", sequence=4))
    assert decode_run(world.stream.sent[0]) == DataRun(raw(THERE6), 4, 9, 0, 0, memoryview(b"ping6"))
    assert world.tracker.counts.icmp == 2


def test_one_identifier_is_one_stream(world):
    for sequence in range(3):
        world.host_sends(echo(sequence=sequence))
    world.host_sends(echo(identifier=8))
    assert [len(stream.sent) for stream in world.streams.opened] == [3, 1]


def test_the_reply_has_the_hosts_own_identifier(world):
    world.host_sends(echo())
    world.exit_sends(encode_run_header(raw(THERE), 1) + b"ping")
    got = world.host_gets()
    assert (got.src, got.dst) == (THERE, ME)
    assert (got[ICMP].type, got[ICMP].id, got[ICMP].seq) == (0, 7, 1)
    assert bytes(got[ICMP].payload) == b"ping"
    again = got.copy()
    del again[ICMP].chksum
    assert bytes(again) == bytes(got)


def test_the_reply_over_ipv6(world):
    world.host_sends(echo6())
    world.exit_sends(encode_run_header(raw(THERE6), 1) + b"ping")
    got = world.host_gets()
    reply = got[ICMPv6EchoReply]
    assert (got.src, reply.id, reply.seq, reply.data) == (THERE6, 7, 1, b"ping")
    again = got.copy()
    del again[ICMPv6EchoReply].cksum
    assert bytes(again) == bytes(got)


def test_a_router_on_the_way_is_named(world):
    world.host_sends(echo(ttl=1))
    error = ErrorRun(IcmpErrorKind.TIME_EXCEEDED, raw("203.0.113.1"), raw(THERE), 1)
    world.exit_sends(encode_error(error))
    told = world.host_gets()
    assert (told.src, told[ICMP].type) == ("203.0.113.1", 11)
    quoted = told[ICMP].payload
    assert (quoted.dst, quoted.payload.type, quoted.payload.id, quoted.payload.seq) == (THERE, 8, 7, 1)


@pytest.mark.parametrize(
    ("kind", "layer"),
    [
        (IcmpErrorKind.TIME_EXCEEDED, ICMPv6TimeExceeded),
        (IcmpErrorKind.HOST_UNREACHABLE, ICMPv6DestUnreach),
        (IcmpErrorKind.PACKET_TOO_BIG, ICMPv6PacketTooBig),
    ],
)
def test_errors_over_ipv6(world, kind, layer):
    world.host_sends(echo6())
    world.exit_sends(encode_error(ErrorRun(kind, raw("2001:db8::1"), raw(THERE6), 1, 1300)))
    told = world.host_gets()
    assert told.src == "2001:db8::1"
    assert told.haslayer(layer)
    quoted = IPv6(bytes(told[layer].payload))
    assert (quoted.dst, quoted[ICMPv6EchoRequest].id, quoted[ICMPv6EchoRequest].seq) == (THERE6, 7, 1)


def test_ping_to_a_fake_address_is_answered_here(world):
    world.dns.names[raw("198.18.0.7")] = "www.example.org"
    world.host_sends(IP(src=ME, dst="198.18.0.7") / ICMP(id=7, seq=2) / Raw(b"anybody?"))
    assert not world.streams.opened
    got = world.host_gets()
    assert (got.src, got[ICMP].type, got[ICMP].seq, bytes(got[ICMP].payload)) == (
        "198.18.0.7",
        0,
        2,
        b"anybody?",
    )


@pytest.mark.parametrize("address", [raw(THERE6), "unheard-of.example.org"])
def test_a_reply_that_no_packet_of_this_flow_can_carry_is_dropped(world, address):
    world.host_sends(echo())
    world.exit_sends(encode_run_header(address, 1) + b"ping")
    assert not world.frames
    assert world.dropped == {"icmp-wrong-family": 1}


def test_a_malformed_run_is_dropped(world):
    world.host_sends(echo())
    world.exit_sends(b"\x09\x04\x40\x00\x00\x01\x00\x00")
    assert world.dropped == {"datagram-bad-run": 1}


@pytest.mark.parametrize(("packet", "longest"), [(echo, 65_474), (echo6, 65_462)], ids=["IPv4", "IPv6"])
def test_what_no_record_can_hold_is_told_to_the_host(world, packet, longest):
    world.host_sends(packet(bytes(longest)))
    world.host_sends(packet(bytes(longest + 1)))
    assert len(world.stream.sent) == 1
    assert len(world.frames) == 1
    assert world.dropped == {"icmp-too-long": 1}


def test_an_idle_flow_is_forgotten(new_world):
    world = new_world(icmp_idle=60.0)
    world.host_sends(echo())
    world.pass_time(50)
    world.exit_sends(encode_run_header(raw(THERE), 1) + b"ping")
    world.pass_time(50)
    assert world.tracker.counts.icmp == 1
    world.pass_time(11)
    assert world.tracker.counts.icmp == 0
    assert world.stream.is_closed
    assert world.counters.counted["icmp-flows-idle"] == 1


@pytest.mark.parametrize("end", ["aborted", "refused"])
def test_the_next_echo_opens_a_new_stream_after_the_exit_has_ended_one(world, end):
    world.host_sends(echo())
    getattr(world.stream.handler, end)(ResetCode.LIMIT, world.now)
    assert world.tracker.counts.icmp == 0
    world.host_sends(echo())
    assert len(world.streams.opened) == 2


def test_without_a_session_an_echo_is_dropped(world):
    world.streams.is_there = False
    world.host_sends(echo())
    assert world.tracker.counts.icmp == 0
    assert world.dropped == {"icmp-no-session": 1}


def test_flows_are_bounded(new_world):
    world = new_world(max_icmp_flows=2)
    for identifier in (1, 2, 3):
        world.host_sends(echo(identifier=identifier))
    assert world.tracker.counts.icmp == 2
    assert world.dropped == {"icmp-too-many-flows": 1}


@pytest.mark.parametrize(
    "packet",
    [IP(src=ME, dst="224.0.0.1") / ICMP(), IPv6(src=ME6, dst="ff02::1") / ICMPv6EchoRequest()],
)
def test_echo_to_many_is_not_carried(world, packet):
    world.host_sends(packet)
    assert not world.streams.opened
    assert world.dropped == {"icmp-to-many": 1}


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (IP(src=ME, dst=THERE) / ICMP(type=13), "icmp-not-echo"),
        (IP(src=ME, dst=THERE) / ICMP(type=3, code=3) / IP(src=THERE, dst=ME), "icmp-not-echo"),
        (IP(src=ME, dst=THERE) / ICMP(chksum=1), "icmp-bad-checksum"),
        (IP(src=ME, dst=THERE, proto=1) / Raw(b"short"), "icmp-too-short"),
    ],
)
def test_other_messages_are_dropped(world, packet, reason):
    world.host_sends(packet)
    assert not world.streams.opened
    assert not world.frames
    assert world.dropped == {reason: 1}


def test_an_echo_reply_never_comes_from_the_lan_unless_the_host_asked_there(world):
    world.host_sends(echo())
    world.exit_sends(encode_run_header(raw("192.168.1.1"), 1) + b"believe me")
    assert not world.frames and world.dropped == {"icmp-source-denied": 1}
    world.host_sends(IP(src=ME, dst="192.168.1.1") / ICMP(id=7, seq=2) / Raw(b"ping"))
    world.exit_sends(encode_run_header(raw("192.168.1.1"), 2) + b"ping")
    assert world.host_gets().src == "192.168.1.1"
