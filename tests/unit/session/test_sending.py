"""The sending half of a stream: numbers, credit, the ring, splitting, and what goes out again."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from halftunnel_vpn.errors import FlowControlError
from halftunnel_vpn.protocol.records import MAX_TRAIN
from halftunnel_vpn.protocol.stream_messages import ResetCode, encode_reset
from halftunnel_vpn.protocol.wire import HEADER_LENGTH, PacketType, iter_train
from halftunnel_vpn.session.send_side import MIN_SPLIT, RING, ROOM_LOW, SEND_BUFFER, UNSENT_LIMIT, SendSide
from halftunnel_vpn.session.train import Train

DATA, FIN, OPEN, RESET = PacketType.DATA, PacketType.FIN, PacketType.OPEN, PacketType.RESET
LARGEST = MAX_TRAIN - HEADER_LENGTH


def kinds(packets):
    return [(packet.type, packet.sequence) for packet in packets]


def test_bytes_become_one_numbered_packet_that_acknowledges(send_side, fill, leg):
    send_side.queue(b"hello ")
    send_side.queue(b"world")
    (packet,) = fill(leg, acknowledgement=7)
    assert (packet.type, packet.stream_id, packet.sequence) == (DATA, 1, 0)
    assert bytes(packet.payload) == b"hello world"
    assert packet.acknowledgement == 7
    assert fill(leg) == []


def test_control_goes_before_data_and_fin_behind_it(send_side, fill, leg):
    send_side.queue(b"x")
    send_side.fin_queued = True
    send_side.control.append((OPEN, b"request"))
    assert kinds(fill(leg)) == [(OPEN, 0), (DATA, 1), (FIN, 2)]
    assert not send_side.has_something_to_send and not send_side.finished
    assert send_side.acknowledge(3)
    assert send_side.finished


def test_an_empty_piece_is_nothing(send_side, fill, leg):
    send_side.queue(b"")
    assert not send_side.has_something_to_send
    send_side.fin_queued = True
    assert kinds(fill(leg)) == [(FIN, 0)]


def test_data_stops_at_the_credit_and_goes_on_with_more(send_side, fill, leg):
    send_side.credit = 10
    send_side.queue(bytes(15))
    assert [len(packet.payload) for packet in fill(leg)] == [10]
    assert not send_side.has_something_to_send
    send_side.fin_queued = True
    assert fill(leg) == [], "a FIN waits for the data before it"
    send_side.credit = 100
    assert kinds(fill(leg)) == [(DATA, 1), (FIN, 2)]


def test_data_stops_at_the_turn_of_the_stream(send_side, fill, leg):
    send_side.queue(bytes(50_000))
    assert sum(len(packet.payload) for packet in fill(leg, limit=1000)) <= 1000
    assert send_side.has_something_to_send


def test_a_whole_train_is_used_and_never_more(send_side, fill, leg):
    for _ in range(7):
        send_side.queue(bytes(60_000))
    sizes = []
    while packets := fill(leg):
        length = sum(HEADER_LENGTH + len(packet.payload) for packet in packets)
        assert length <= MAX_TRAIN
        sizes.append(length)
    assert sum(sizes) - len(sizes) * HEADER_LENGTH == 420_000
    assert len(sizes) == 7


def test_a_piece_that_fits_no_train_is_split(send_side, fill, leg):
    send_side.queue(bytes(200_000))
    assert [len(packet.payload) for packet in fill(leg)] == [LARGEST]
    assert send_side.unsent_bytes == 200_000 - LARGEST


def test_the_rest_of_a_train_is_not_filled_with_crumbs(send_side, leg):
    train = Train()
    train.parts.append(bytes(MAX_TRAIN - MIN_SPLIT))
    train.room = MIN_SPLIT
    send_side.queue(bytes(60_000))
    assert send_side.fill(train, leg, 0, 1 << 20, 0.0) == 0


def test_what_does_not_fit_waits_for_the_next_train(send_side, leg):
    train = Train()
    train.room = 20
    send_side.control.append((OPEN, bytes(12)))
    send_side.fin_queued = True
    assert send_side.fill(train, leg, 0, 1 << 20, 0.0) == 0
    assert send_side.has_something_to_send and not train.parts
    send_side.control.clear()
    assert send_side.fill(train, leg, 0, 1 << 20, 0.0) == 0, "nor does the FIN"
    assert send_side.fin_queued


def test_a_packet_sent_again_that_does_not_fit_waits_too(send_side, fill, leg, other_leg):
    send_side.queue(bytes(1000))
    fill(leg)
    send_side.leg_lost(leg)
    train = Train()
    train.room = 1000
    assert send_side.fill(train, other_leg, 0, 1 << 20, 0.0) == 0
    assert kinds(fill(other_leg)) == [(DATA, 0)]


def test_room_is_what_credit_buffer_and_unsent_bytes_leave(send_side, fill, leg):
    assert send_side.room == UNSENT_LIMIT
    send_side.queue(bytes(UNSENT_LIMIT - 10))
    assert send_side.room == 10
    send_side.queue(bytes(30))
    assert send_side.room == 0
    send_side.credit = UNSENT_LIMIT + 25
    while fill(leg):
        pass
    assert send_side.room == 5
    assert ROOM_LOW < UNSENT_LIMIT


def test_what_is_not_acknowledged_counts_against_the_send_buffer(send_side, fill, leg):
    sent = 0
    while room := min(send_side.room, 65_000):
        send_side.queue(bytes(room))
        sent += room
        while fill(leg):
            pass
    assert sent == SEND_BUFFER
    send_side.acknowledge(1)
    assert send_side.room == send_side.acknowledged_bytes > 0


def test_the_ring_bounds_what_is_under_way_and_the_fin_too(send_side, fill, leg):
    for _ in range(RING):
        send_side.queue(b"x")
        assert len(fill(leg)) == 1
    send_side.fin_queued = True
    assert not send_side.has_something_to_send
    assert fill(leg) == [], "a FIN beyond the ring would break the rules"
    send_side.queue(b"x")
    assert fill(leg) == []
    send_side.acknowledge(2)
    assert kinds(fill(leg)) == [(DATA, RING), (FIN, RING + 1)]


def test_acknowledgements_are_cumulative_and_old_ones_do_nothing(send_side, fill, leg):
    for _ in range(5):
        send_side.queue(bytes(10))
        fill(leg)
    assert send_side.acknowledge(3)
    assert send_side.acknowledged_bytes == 30
    assert not send_side.acknowledge(3)
    assert not send_side.acknowledge(1)
    assert send_side.acknowledge(5)
    assert send_side.finished


@pytest.mark.parametrize("start", [0, 1000, (1 << 32) - 2, (1 << 33) - 1])
def test_an_acknowledgement_of_what_was_never_sent_is_a_violation(send_side, fill, leg, start):
    send_side.next_sequence = send_side.acknowledged = start
    send_side.queue(b"x")
    fill(leg)
    with pytest.raises(FlowControlError) as raised:
        send_side.acknowledge((start + 2) & 0xFFFF_FFFF)
    assert raised.value.reason == "ack-never-sent"
    assert not send_side.acknowledge(start - 1 & 0xFFFF_FFFF), "an old one is none"
    assert send_side.acknowledge((start + 1) & 0xFFFF_FFFF)


def test_a_lost_leg_gives_back_its_own_packets_in_order(send_side, fill, leg, other_leg):
    for number in range(6):
        send_side.queue(bytes([number]))
        fill(leg if number % 2 else other_leg)
    assert send_side.leg_lost(leg)
    again = fill(other_leg)
    assert kinds(again) == [(DATA, 1), (DATA, 3), (DATA, 5)]
    assert [bytes(packet.payload) for packet in again] == [b"\x01", b"\x03", b"\x05"]
    assert not send_side.leg_lost(leg), "it carries nothing any more"
    assert send_side.leg_lost(other_leg)
    assert [packet.sequence for packet in fill(leg)] == [0, 1, 2, 3, 4, 5]


def test_a_packet_acknowledged_while_it_waits_is_not_sent_again(send_side, fill, leg, other_leg):
    for _ in range(3):
        send_side.queue(b"x")
        fill(leg)
    send_side.leg_lost(leg)
    send_side.acknowledge(2)
    assert kinds(fill(other_leg)) == [(DATA, 2)]


def test_nothing_overtakes_an_open_on_another_leg(send_side, fill, leg, other_leg):
    send_side.control.append((OPEN, b"request"))
    assert kinds(fill(leg)) == [(OPEN, 0)]
    send_side.queue(b"early")
    assert send_side.waits_for_other_leg(other_leg) and not send_side.waits_for_other_leg(leg)
    assert fill(other_leg) == []
    assert kinds(fill(leg)) == [(DATA, 1)]
    send_side.acknowledge(1)
    send_side.queue(b"late")
    assert kinds(fill(other_leg)) == [(DATA, 2)]


def test_an_open_that_goes_out_again_binds_the_stream_to_its_new_leg(send_side, fill, leg, other_leg):
    send_side.control.append((OPEN, b"request"))
    send_side.queue(b"early")
    fill(leg)
    send_side.leg_lost(leg)
    assert kinds(fill(other_leg)) == [(OPEN, 0), (DATA, 1)]
    send_side.queue(b"more")
    assert send_side.waits_for_other_leg(leg)
    assert fill(leg) == []


def test_only_the_oldest_packet_goes_out_again_for_its_age(send_side, fill, leg):
    for now in (1.0, 2.0, 3.0):
        send_side.queue(b"x")
        fill(leg, now=now)
    assert not send_side.send_again_before(1.0)
    assert send_side.send_again_before(1.5)
    assert not send_side.send_again_before(1.5), "it waits already"
    assert kinds(fill(leg, now=10.0)) == [(DATA, 0)]
    assert not send_side.send_again_before(9.0), "sent at 10"
    send_side.acknowledge(1)
    assert send_side.send_again_before(9.0)
    assert kinds(fill(leg, now=20.0)) == [(DATA, 1)]


def test_dropping_everything_leaves_only_what_is_queued_afterwards(send_side, fill, leg, other_leg):
    send_side.control.append((OPEN, b"request"))
    send_side.queue(b"x" * 100)
    fill(leg)
    send_side.leg_lost(leg)
    send_side.queue(b"y")
    send_side.fin_queued = True
    send_side.drop_everything()
    assert send_side.finished and not send_side.has_something_to_send
    assert fill(other_leg) == []
    send_side.control.append((RESET, encode_reset(ResetCode.NORMAL)))
    assert kinds(fill(other_leg)) == [(RESET, 2)]


@pytest.mark.parametrize("start", [(1 << 32) - 3, (1 << 32) - 1, 1 << 32, (1 << 34) - 2])
def test_numbers_wrap_on_the_wire_and_nowhere_else(send_side, fill, leg, other_leg, start):
    send_side.next_sequence = send_side.acknowledged = start
    for _ in range(6):
        send_side.queue(bytes(10))
        fill(leg)
    assert send_side.acknowledge((start + 2) & 0xFFFF_FFFF)
    assert send_side.acknowledged_bytes == 20
    send_side.leg_lost(leg)
    again = fill(other_leg)
    assert [packet.sequence for packet in again] == [(start + i) & 0xFFFF_FFFF for i in range(2, 6)]
    assert send_side.acknowledge((start + 6) & 0xFFFF_FFFF)
    assert send_side.finished


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pieces=st.lists(st.binary(max_size=70_000), max_size=8),
    limits=st.lists(st.integers(1, 70_000), min_size=1),
)
def test_bytes_come_out_as_they_went_in(leg, pieces, limits):
    """Whatever the pieces and the turns: the payloads in a row are the pieces in a row."""
    side = SendSide(bytes(range(16)), 1, 1 << 40)
    for piece in pieces:
        side.queue(piece)
    received = b""
    turn = 0
    while side.has_something_to_send and side.unsent_bytes:
        train = Train()
        side.fill(train, leg, 0, max(limits[turn % len(limits)], 100), 0.0)
        turn += 1
        data = b"".join(train.parts)
        assert len(data) <= MAX_TRAIN
        if data:
            received += b"".join(packet.payload for packet in iter_train(data, bytes(range(16))))
    assert received == b"".join(pieces)
