"""What is common to all flows, the beginning and the end of TCP flows, DNS over UDP, and everything else."""

from __future__ import annotations

import random
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import ICMPv6ParamProblem, IPv6, IPv6ExtHdrFragment, fragment6
from scapy.packet import Raw

from halftunnel_vpn.flow.tcp.endpoint import ACK_DELAY
from halftunnel_vpn.flow.tcp.endpoint_config import TcpEndpointConfig
from halftunnel_vpn.inet import vnet
from halftunnel_vpn.protocol.datagram import decode_run, encode_run_header
from halftunnel_vpn.protocol.stream_messages import ResetCode, StreamKind

ME, THERE = "10.73.72.1", "198.51.100.2"
ME6, THERE6 = "fd48::1", "2001:db8:100::2"


def raw(address: str) -> bytes:
    return ip_address(address).packed


def segment(flags: str, *, sport: int = 4000, dport: int = 80, seq: int = 100, ack: int = 0) -> IP:
    return IP(src=ME, dst=THERE) / TCP(sport=sport, dport=dport, flags=flags, seq=seq, ack=ack)


def segment6(flags: str, *, seq: int = 100) -> IPv6:
    return IPv6(src=ME6, dst=THERE6) / TCP(sport=4000, dport=80, flags=flags, seq=seq)


def connect(world, *, sport: int = 4000) -> int:
    """The host and the exit open a connection; the sequence number that the host expects next."""
    world.host_sends(segment("S", sport=sport))
    world.stream.handler.opened(world.now)
    number = world.host_gets()[TCP].seq + 1
    world.host_sends(segment("A", sport=sport, seq=101, ack=number))
    return number


# --- TCP --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("packet", "there"), [(segment, THERE), (segment6, THERE6)])
def test_a_syn_opens_a_stream_and_waits_for_the_exit(world, packet, there):
    world.host_sends(packet("S"))
    request = world.stream.request
    assert (request.kind, request.host, request.port) == (StreamKind.TCP, raw(there), 80)
    assert not world.frames
    assert world.tracker.counts.tcp == 1

    world.stream.handler.opened(world.now)
    answer = world.host_gets()
    assert (answer.src, answer[TCP].flags, answer[TCP].ack) == (there, "SA", 101)


def test_data_goes_both_ways_and_a_batch_is_acknowledged_once(world):
    number = connect(world)
    frames = [
        vnet.PLAIN + bytes(segment("A", seq=101 + 5 * at, ack=number) / Raw(b"%05d" % at)) for at in range(4)
    ]
    for frame in frames:
        world.tracker.frame_arrived(frame, world.now)
    assert not world.frames
    world.tracker.flush(world.now)
    assert b"".join(world.stream.sent) == b"00000000010000200003"
    (acknowledgement,) = [world.host_gets()[TCP] for _ in list(world.frames)]
    assert acknowledgement.ack == 121

    world.exit_sends(b"answer")
    assert bytes(world.host_gets()[TCP].payload) == b"answer"


def test_in_a_conversation_the_answer_carries_the_acknowledgement(world):
    ours, theirs = connect(world), 101

    def host_says(count: int = 1) -> list[IP]:
        """What the host gets at once for ``count`` segments of ten bytes in one batch."""
        nonlocal theirs
        for _ in range(count):
            frame = vnet.PLAIN + bytes(segment("PA", seq=theirs, ack=ours) / Raw(b"a question"))
            theirs += 10
            world.tracker.frame_arrived(frame, world.now)
        world.tracker.flush(world.now)
        return [world.host_gets()[TCP] for _ in range(len(world.frames))]

    def exit_answers() -> list[IP]:
        nonlocal ours
        world.stream.handler.data_received(memoryview(b"an answer"), world.now)
        ours += 9
        return [world.host_gets()[TCP] for _ in range(len(world.frames))]

    for _ in range(3):
        assert [one.ack for one in host_says()] == [theirs]
        assert [one.ack for one in exit_answers()] == [theirs]
    for _ in range(3):
        assert host_says() == []
        (answer,) = exit_answers()
        assert answer.ack == theirs and bytes(answer.payload) == b"an answer"
    assert [one.ack for one in host_says(300)] == [theirs]  # too much to wait
    exit_answers()

    assert host_says() == []
    world.pass_time(ACK_DELAY * 0.6)
    exit_answers()
    assert host_says() == []  # and no answer comes
    world.pass_time(ACK_DELAY * 0.6)
    assert not world.frames  # the timer has run, for the first of the two
    world.pass_time(ACK_DELAY)
    assert [world.host_gets()[TCP].ack] == [theirs]
    exit_answers()
    assert [one.ack for one in host_says()] == [theirs]  # the host may have been waiting for us


def test_a_fake_address_is_opened_by_name(world):
    world.dns.names[raw(THERE)] = "www.example.org"
    world.host_sends(segment("S"))
    assert world.stream.request.host == "www.example.org"


def test_a_name_that_no_packet_can_carry_is_counted(world):
    world.dns.names[raw(THERE)] = "127.1"
    world.host_sends(segment("S"))
    assert world.tracker.counts.tcp == 0
    assert world.dropped == {"open-bad-name": 1}
    assert world.wheel.next_deadline is None


@pytest.mark.parametrize("code", [ResetCode.REFUSED, ResetCode.PROTOCOL_ERROR, ResetCode.LIMIT])
def test_a_refusal_is_a_reset(world, code):
    world.host_sends(segment("S"))
    world.stream.handler.refused(code, world.now)
    answer = world.host_gets()
    assert (answer.src, answer[TCP].flags, answer[TCP].ack) == (THERE, "RA", 101)
    assert world.tracker.counts.tcp == 0


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (ResetCode.NETWORK_UNREACHABLE, (3, 0)),
        (ResetCode.HOST_UNREACHABLE, (3, 1)),
        (ResetCode.TIMED_OUT, (3, 1)),
        (ResetCode.NAME_NOT_FOUND, (3, 1)),
        (ResetCode.DENIED, (3, 13)),
    ],
)
def test_what_cannot_be_reached_is_told_by_icmp(world, code, told):
    world.host_sends(segment("S"))
    world.stream.handler.refused(code, world.now)
    error = world.host_gets()
    assert (error.src, error[ICMP].type, error[ICMP].code) == (THERE, *told)
    quoted = error[ICMP].payload
    assert (quoted.dst, quoted.payload.sport, quoted.payload.dport) == (THERE, 4000, 80)
    assert world.tracker.counts.tcp == 0


def test_answering_at_once_does_not_wait_for_the_exit(new_world):
    world = new_world(tcp=TcpEndpointConfig(answer_at_once=True))
    world.host_sends(segment("S"))
    assert world.host_gets()[TCP].flags == "SA"


def test_a_destination_that_answered_is_answered_at_once_the_next_time(world):
    world.host_sends(segment("S"))
    assert not world.frames, "the first one waits for the exit"
    world.stream.handler.opened(world.now)
    assert world.host_gets()[TCP].flags == "SA"
    world.host_sends(segment("S", sport=4001))
    assert world.host_gets()[TCP].flags == "SA"
    assert len(world.streams.opened) == 2, "the exit is asked all the same"
    world.host_sends(segment("S", sport=4002, dport=81))
    assert not world.frames, "another port is another destination"
    assert world.counters.counted["tcp-answered-at-once"] == 1


def test_who_fails_after_all_is_reset_and_waits_the_next_time(world):
    world.host_sends(segment("S"))
    world.stream.handler.opened(world.now)
    world.host_gets()
    world.host_sends(segment("S", sport=4001))
    assert world.host_gets()[TCP].flags == "SA"
    world.stream.handler.refused(ResetCode.REFUSED, world.now)
    assert "R" in world.host_gets()[TCP].flags
    assert world.counters.counted["tcp-answered-and-refused"] == 1
    world.host_sends(segment("S", sport=4002))
    assert not world.frames
    world.stream.handler.refused(ResetCode.HOST_UNREACHABLE, world.now)
    assert ICMP in world.host_gets(), "the host is told in the usual way again"


def test_a_traceroute_waits_for_the_exit_everywhere(world):
    world.host_sends(segment("S"))
    world.stream.handler.opened(world.now)
    world.host_gets()
    probe = segment("S", sport=4001)
    probe.ttl = 3
    world.host_sends(probe)
    assert not world.frames and world.stream.request.hop_limit == 3


def test_what_was_known_is_forgotten_with_the_session_and_by_the_setting(world, new_world):
    world.host_sends(segment("S"))
    world.stream.handler.opened(world.now)
    world.tracker.session_lost(world.now)
    world.frames.clear()
    world.host_sends(segment("S", sport=4001))
    assert not world.frames
    careful = new_world(answer_known_at_once=False)
    careful.host_sends(segment("S"))
    careful.stream.handler.opened(careful.now)
    careful.host_gets()
    careful.host_sends(segment("S", sport=4001))
    assert not careful.frames


@pytest.mark.parametrize("flags", ["A", "SA", "FA", "PA"])
def test_a_segment_of_no_connection_is_reset(world, flags):
    world.host_sends(segment(flags, ack=77))
    got = world.host_gets()[TCP]
    assert (got.flags, got.seq, got.ack) == ("R", 77, 0)
    assert (got.sport, got.dport) == (80, 4000)
    assert world.dropped == {"tcp-no-flow": 1}


def test_a_reset_of_no_connection_is_not_answered(world):
    world.host_sends(segment("R"))
    assert not world.frames
    assert not world.dropped


@pytest.mark.parametrize("flags", ["A", "S"])
def test_a_segment_to_many_is_not_answered(world, flags):
    world.host_sends(IP(src=ME, dst="224.0.0.9") / TCP(sport=1, dport=2, flags=flags))
    assert not world.frames
    assert not world.streams.opened
    assert world.dropped == {"tcp-to-many" if flags == "S" else "tcp-no-flow": 1}


def test_without_a_session_the_host_asks_again(world):
    world.streams.is_there = False
    world.host_sends(segment("S"))
    assert not world.frames
    assert world.tracker.counts.tcp == 0
    assert world.dropped == {"tcp-no-session": 1}
    world.streams.is_there = True
    world.host_sends(segment("S"))
    assert world.tracker.counts.tcp == 1


@pytest.mark.parametrize(
    ("packet", "label"),
    [
        (IP(src=ME, dst=THERE) / TCP(sport=1, dport=80, flags="S"), "tcp"),
        (IP(src=ME, dst=THERE) / UDP(sport=1, dport=443) / Raw(b"hello"), "udp"),
        (IP(src=ME, dst=THERE) / ICMP(id=3), "icmp"),
    ],
    ids=("tcp", "udp", "icmp"),
)
def test_without_a_road_for_a_while_the_host_is_refused_at_once(world, packet, label):
    world.streams.is_lost = True
    world.host_sends(packet)
    told = world.host_gets()
    assert (told.src, told[ICMP].type, told[ICMP].code) == (THERE, 3, 0)
    assert world.dropped == {f"{label}-path-lost": 1}
    counts = world.tracker.counts
    assert (counts.tcp, counts.udp, counts.icmp) == (0, 0, 0)


def test_flows_are_bounded(new_world):
    world = new_world(max_tcp_flows=2)
    for port in (1, 2, 3):
        world.host_sends(segment("S", sport=port))
    assert world.tracker.counts.tcp == 2
    assert world.dropped == {"tcp-too-many-flows": 1}


def test_a_new_syn_takes_the_place_of_a_connection_that_is_over(world):
    number = connect(world)
    first = world.stream
    first.handler.finished(world.now)
    world.host_sends(segment("FA", seq=101, ack=number + 1))
    assert first.is_finished
    assert world.tracker.counts.tcp == 1  # TIME-WAIT
    world.frames.clear()
    world.host_sends(segment("S", seq=5000))
    assert len(world.streams.opened) == 2
    world.stream.handler.opened(world.now)
    assert world.host_gets()[TCP].ack == 5001
    world.pass_time(10)  # the end of the first one's TIME-WAIT is none of the second one's
    assert world.tracker.counts.tcp == 1


# --- DNS over UDP -----------------------------------------------------------------------------------


@pytest.mark.parametrize("destination", ["8.8.8.8", "192.168.1.1", "10.73.72.53"])
def test_a_query_to_any_address_is_answered_as_from_there(world, destination):
    world.host_sends(IP(src=ME, dst=destination) / UDP(sport=4000, dport=53) / b"the query")
    ((message, reply, stream),) = world.dns.asked
    assert (message, stream) == (b"the query", False)
    reply(b"the answer")
    got = world.host_gets()
    assert (got.src, got[UDP].sport, got[UDP].dport) == (destination, 53, 4000)
    assert bytes(got)[28:] == b"the answer"
    assert not world.streams.opened
    assert world.tracker.counts.udp == 0


def test_a_query_over_ipv6(world):
    world.host_sends(IPv6(src=ME6, dst="2001:db8:ffff::1") / UDP(sport=4000, dport=53) / b"the query")
    world.dns.asked[0][1](b"the answer")
    got = world.host_gets()
    assert got.src == "2001:db8:ffff::1"
    assert bytes(got)[48:] == b"the answer"


def test_a_datagram_that_concerns_the_named_server_goes_to_it(world):
    world.host_sends(IP(src=ME, dst="8.8.8.8") / UDP(sport=4000, dport=53) / b"server, what do you know")
    assert world.stream.request.kind is StreamKind.UDP
    run = decode_run(world.stream.sent[0])
    assert (run.address, run.port) == (bytes((8, 8, 8, 8)), 53)
    assert bytes(run.data) == b"server, what do you know"
    world.exit_sends(encode_run_header(bytes((8, 8, 8, 8)), 53) + b"its answer")
    got = world.host_gets()
    assert (got.src, got[UDP].sport, got[UDP].dport) == ("8.8.8.8", 53, 4000)
    assert bytes(got)[28:] == b"its answer"
    world.host_sends(IP(src=ME, dst="8.8.8.8") / UDP(sport=4000, dport=53) / b"the query")
    assert [message for message, _, _ in world.dns.asked] == [b"the query"], "of the same socket"
    assert len(world.stream.sent) == 1


def test_our_own_resolver_answers_all_that_it_is_sent(world):
    packet = IP(src=ME, dst="10.73.72.53") / UDP(sport=4000, dport=53) / b"server, what do you know"
    world.host_sends(packet)
    assert len(world.dns.asked) == 1
    assert not world.streams.opened


def test_several_queries_in_one_frame_are_several_queries(world):
    packet = IP(src=ME, dst="8.8.8.8") / UDP(sport=4000, dport=53) / b"query-onequery-two"
    header = vnet.VnetHeader(vnet.NEEDS_CSUM, vnet.GSO_UDP_L4, 28, 9, 20, 6).encode()
    world.host_sends(packet, header)
    assert [message for message, _, _ in world.dns.asked] == [b"query-one", b"query-two"]


def test_who_asks_is_told_apart_by_address(world):
    for source in (ME, "192.168.50.7"):
        world.host_sends(IP(src=source, dst="8.8.8.8") / UDP(sport=4000, dport=53) / b"the query")
    assert world.dns.clients == [bytes((10, 73, 72, 1)), bytes((192, 168, 50, 7))]


def test_dns_that_is_left_alone_is_udp_and_tcp_like_any_other(new_world):
    world = new_world(intercept_dns=False)
    world.host_sends(IP(src=ME, dst="8.8.8.8") / UDP(sport=4000, dport=53) / b"the query")
    assert world.stream.request.kind is StreamKind.UDP
    assert decode_run(world.stream.sent[0]).port == 53
    world.host_sends(segment("S", dport=53))
    assert (world.stream.request.kind, world.stream.request.port) == (StreamKind.TCP, 53)
    assert not world.dns.asked


# --- fragments --------------------------------------------------------------------------------------


def test_fragments_are_one_datagram(world):
    data = random.Random(1).randbytes(9000)
    pieces = fragment(IP(src=ME, dst=THERE, id=7) / UDP(sport=4000, dport=5000) / Raw(data), 1480)
    assert len(pieces) == 7
    for piece in reversed(pieces):
        world.host_sends(piece)
    (run,) = world.stream.sent
    assert bytes(decode_run(run).data) == data
    assert world.wheel.next_deadline is not None


def test_fragments_over_ipv6(world):
    data = random.Random(2).randbytes(9000)
    whole = IPv6(src=ME6, dst=THERE6) / IPv6ExtHdrFragment(id=7) / UDP(sport=4000, dport=5000) / Raw(data)
    for piece in fragment6(whole, 1500):
        world.host_sends(piece)
    assert bytes(decode_run(world.stream.sent[0]).data) == data


def test_fragments_that_stay_alone_are_given_up(world):
    for number in range(3):
        piece = fragment(IP(src=ME, dst=THERE, id=number) / UDP(dport=9) / Raw(bytes(3000)), 1480)[0]
        world.host_sends(piece)
        world.pass_time(5)
    for left in (1, 2, 3):
        assert world.wheel.next_deadline is not None
        world.pass_time(world.wheel.next_deadline - world.now + 0.01)
        assert world.dropped == {"fragment-timeout": left}
    assert world.wheel.next_deadline is None


def test_the_checksum_of_a_reassembled_datagram_is_checked(world):
    """The kernel's word for a single frame does not hold for what was put together."""
    pieces = fragment(IP(src=ME, dst=THERE) / UDP(sport=1, dport=2, chksum=0x1234) / Raw(bytes(3000)), 1480)
    for piece in pieces:
        world.host_sends(piece, bytes([vnet.DATA_VALID]) + bytes(9))
    assert world.dropped == {"udp-bad-checksum": 1}


@pytest.mark.parametrize("flags", [vnet.NEEDS_CSUM, vnet.DATA_VALID])
def test_the_kernels_word_for_a_checksum_is_enough(world, flags):
    packet = IP(src=ME, dst=THERE) / UDP(sport=1, dport=2, chksum=0x1234) / b"x"
    world.host_sends(packet, bytes([flags]) + bytes(9))
    assert len(world.stream.sent) == 1


# --- everything else --------------------------------------------------------------------------------


def test_another_protocol_is_unreachable(world):
    world.host_sends(IP(src=ME, dst=THERE, proto=132) / Raw(b"SCTP, perhaps"))
    told = world.host_gets()
    assert (told.src, told[ICMP].type, told[ICMP].code) == (THERE, 3, 2)
    world.host_sends(IPv6(src=ME6, dst=THERE6, nh=132) / Raw(b"SCTP, perhaps"))
    told = world.host_gets()
    assert (told.src, told[ICMPv6ParamProblem].code, told[ICMPv6ParamProblem].ptr) == (THERE6, 1, 6)
    assert world.dropped == {"ip-protocol-unreachable": 2}


def test_nobody_is_told_about_a_packet_to_many(world):
    world.host_sends(IP(src=ME, dst="224.0.0.22", proto=2) / Raw(bytes(8)))
    assert not world.frames
    assert world.dropped == {"ip-protocol-unreachable": 1}


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", "ip-too-short"),
        (b"\x01", "ip-too-short"),
        (bytes(10), "ip-too-short"),
        (bytes(10) + b"D" + bytes(30), "ip-bad-header-length"),
        (bytes(10) + b"\x10" + bytes(30), "ip-bad-version"),
        (vnet.PLAIN + bytes(IP(src=ME, dst=THERE, chksum=1) / UDP()), "ip-bad-checksum"),
    ],
)
def test_what_is_no_packet_is_dropped(world, frame, reason):
    world.tracker.frame_arrived(frame, world.now)
    assert world.dropped == {reason: 1}


@given(st.binary(max_size=120))
def test_no_bytes_of_the_host_make_it_raise(new_world, data):
    world = new_world()
    world.tracker.frame_arrived(data, world.now)
    world.tracker.frame_arrived(bytes(10) + data, world.now)
    world.tracker.flush(world.now)


@given(st.data())
def test_no_change_to_a_packet_of_the_host_makes_it_raise(new_world, data):
    world = new_world()
    packet = data.draw(
        st.sampled_from(
            [
                segment("S", dport=53),
                segment6("S"),
                IP(src=ME, dst=THERE) / UDP(sport=1, dport=2) / Raw(bytes(8)),
                IP(src=ME, dst=THERE) / ICMP() / Raw(bytes(8)),
                IPv6(src=ME6, dst=THERE6) / IPv6ExtHdrFragment(m=1) / UDP(sport=1, dport=2) / Raw(bytes(8)),
            ]
        )
    )
    wire = bytearray(bytes(packet))
    for _ in range(data.draw(st.integers(1, 4))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    trusted = bytes([vnet.DATA_VALID]) + bytes(9)
    world.host_sends(bytes(wire), data.draw(st.sampled_from([vnet.PLAIN, trusted])))
    if wire[0] == 0x45:  # once more with a header checksum that holds
        world.host_sends(bytes(IP(bytes(wire)[:10] + b"\0\0" + bytes(wire)[12:])), trusted)


# --- the session ------------------------------------------------------------------------------------


def test_when_the_session_is_lost_tcp_is_reset_and_the_rest_begins_anew(world):
    number = connect(world)
    tcp_stream = world.stream
    world.host_sends(IP(src=ME, dst=THERE) / UDP(sport=1, dport=2) / b"datagram")
    world.host_sends(IP(src=ME, dst=THERE) / ICMP(id=3))

    world.tracker.session_lost(world.now)
    reset = world.host_gets()[TCP]
    assert ("R" in reset.flags, reset.seq) == (True, number)
    assert tcp_stream.reset_code is ResetCode.SHUTDOWN
    counts = world.tracker.counts
    assert (counts.tcp, counts.udp, counts.icmp) == (0, 0, 0)
    assert not world.frames

    world.host_sends(IP(src=ME, dst=THERE) / UDP(sport=1, dport=2) / b"again")
    assert decode_run(world.stream.sent[0]).data == b"again"
