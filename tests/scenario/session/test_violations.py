"""A peer that breaks the rules of a stream loses the stream; one that talks nonsense loses the leg."""

from __future__ import annotations

import pytest

from halftunnel_vpn.errors import FlowControlError, PeerError, SessionExpired, WireError
from halftunnel_vpn.protocol.stream_messages import (
    OpenReply,
    OpenRequest,
    ResetCode,
    StreamKind,
    encode_credit,
    encode_reset,
)
from halftunnel_vpn.protocol.wire import PacketType, iter_train
from halftunnel_vpn.session.send_side import RING
from halftunnel_vpn.session.stream_ids import MAX_GAP

DATA, ACK, FIN, KEEPALIVE, OPEN, RESET, PADDING = (
    PacketType.DATA, PacketType.ACK, PacketType.FIN, PacketType.KEEPALIVE, PacketType.OPEN, PacketType.RESET,
    PacketType.PADDING,
)  # fmt: skip
REQUEST = OpenRequest(StreamKind.TCP, b"\xc6\x33\x64\x02", 80, 65536).encode()


@pytest.fixture
def ended_by_violation(pair):
    """The stream's both users hear PROTOCOL_ERROR, the reason is counted, and nothing is left."""

    def check(receiver, users, reason):
        counters = pair.client_counters if receiver is pair.client else pair.exit_counters
        assert counters.dropped == {reason: 1}
        pair.settle()
        assert [user.events[-1] for user in users] == ["aborted PROTOCOL_ERROR"] * 2
        pair.advance(1.0)
        assert not pair.client.streams and not pair.exit.streams
        assert all(leg.close_reason is None for leg in pair.legs), "no leg was closed for it"

    return check


@pytest.fixture(params=["client", "exit"])
def receiver(request, pair):
    """The end that the rules are broken at."""
    return getattr(pair, request.param)


# --- the stream is over -----------------------------------------------------------------------------


def test_an_acknowledgement_of_what_was_never_sent(pair, receiver, ended_by_violation):
    users = pair.open()
    pair.inject(receiver, pair.packet(ACK, 1, 0, 500, encode_credit(0)))
    ended_by_violation(receiver, users, "ack-never-sent")


def test_a_forged_acknowledgement_in_a_data_packet_delivers_nothing(pair, receiver, ended_by_violation):
    users = pair.open()
    pair.inject(receiver, pair.packet(DATA, 1, 1, 77, b"poison"))
    assert not users[0].received and not users[1].received
    ended_by_violation(receiver, users, "ack-never-sent")


def test_data_beyond_the_credit(pair, receiver, ended_by_violation):
    users = pair.open()
    mine = users[0] if receiver is pair.client else users[1]
    mine.reads = False
    granted = mine.stream.receiving.window.granted
    number = 1
    while granted:
        size = min(granted, 60_000)
        pair.inject(receiver, pair.packet(DATA, 1, number, 1, bytes(size)))
        granted -= size
        number += 1
    assert not receiver.counters.dropped, "all that was granted is taken"
    pair.inject(receiver, pair.packet(DATA, 1, number, 1, b"x"))
    ended_by_violation(receiver, users, "beyond-credit")


def test_a_packet_beyond_the_ring(pair, receiver, ended_by_violation):
    users = pair.open()
    pair.inject(receiver, pair.packet(DATA, 1, RING, 1, b"the last that may wait"))
    assert not receiver.counters.dropped
    pair.inject(receiver, pair.packet(DATA, 1, 1 + RING, 1, b"x"))
    ended_by_violation(receiver, users, "beyond-ring")


@pytest.mark.parametrize(("type_", "payload"), [(DATA, b"more"), (FIN, b"")])
def test_a_packet_behind_a_fin(pair, receiver, ended_by_violation, type_, payload):
    users = pair.open()
    pair.inject(receiver, pair.packet(FIN, 1, 1, 1), pair.packet(type_, 1, 2, 1, payload))
    assert not users[0].received and not users[1].received
    ended_by_violation(receiver, users, "packet-after-fin")


def test_a_packet_behind_a_fin_that_came_before_it_in_a_gap(pair, receiver, ended_by_violation):
    users = pair.open()
    pair.inject(receiver, pair.packet(DATA, 1, 2, 1, b"behind"), pair.packet(FIN, 1, 1, 1))
    ended_by_violation(receiver, users, "packet-after-fin")


def test_a_second_answer_to_an_open(pair, ended_by_violation):
    users = pair.open()
    pair.inject(pair.client, pair.packet(OPEN, 1, 1, 1, OpenReply(65536).encode()))
    ended_by_violation(pair.client, users, "packet-out-of-place")


def test_a_keepalive_on_a_stream(pair, receiver, ended_by_violation):
    users = pair.open()
    pair.inject(receiver, pair.packet(KEEPALIVE, 1, 1, 1))
    ended_by_violation(receiver, users, "packet-out-of-place")


def test_the_exit_hears_of_a_violation_before_it_has_connected(pair):
    pair.accepts = False
    user, exit = pair.open()
    pair.inject(pair.exit, pair.packet(ACK, 1, 0, 9, encode_credit(0)))
    assert exit.events == ["refused PROTOCOL_ERROR"], "so that it stops dialling"
    pair.settle()
    assert user.events == ["refused PROTOCOL_ERROR"]


def test_a_violation_on_a_datagram_stream(pair, receiver, ended_by_violation):
    users = pair.open(StreamKind.UDP)
    pair.inject(receiver, pair.packet(ACK, 1, 0, 500, encode_credit(0)))
    ended_by_violation(receiver, users, "ack-never-sent")


def test_a_violation_on_a_stream_that_is_being_reset_says_nothing_twice(pair):
    client, exit = pair.open()
    exit.stream.reset(ResetCode.CONNECTION_RESET)
    pair.inject(pair.exit, pair.packet(ACK, 1, 0, 500, encode_credit(0)))
    assert exit.events == [], "its user ended it"
    pair.settle()
    assert client.events == ["opened", "aborted CONNECTION_RESET"]


def test_a_neighbour_notices_nothing(pair, receiver):
    pair.open()
    other_client, other_exit = pair.open()
    pair.inject(receiver, pair.packet(ACK, 1, 0, 500, encode_credit(0)))
    pair.settle()
    other_client.stream.send(b"up")
    other_exit.stream.send(b"down")
    pair.settle()
    assert (bytes(other_exit.received), bytes(other_client.received)) == (b"up", b"down")
    assert list(pair.client.streams) == [2]


# --- what looks wrong and is not ----------------------------------------------------------------------


def test_old_acknowledgements_and_smaller_credits_are_ignored(pair):
    client, exit = pair.open()
    client.stream.send(b"x" * 1000)
    pair.settle()
    credit = client.stream.sending.credit
    pair.inject(pair.client, pair.packet(ACK, 1, 0, 0, encode_credit(5)))
    assert client.stream.sending.credit == credit
    client.stream.send(b"y" * 1000)
    pair.settle()
    assert len(exit.received) == 2000
    assert not pair.client_counters.dropped


def test_an_open_that_comes_again_is_acknowledged_and_opens_nothing(pair):
    pair.open()
    pair.inject(pair.exit, pair.packet(OPEN, 1, 0, 0, REQUEST))
    assert len(pair.requests) == 1 and list(pair.exit.streams) == [1]
    pair.exit.pump(pair.now)
    road = pair.end(pair.exit, pair.exit.leg_set._sends).road
    acknowledgements = [p for sent in road for p in iter_train(sent, pair.client.session_id) if p.type is ACK]
    assert [(p.stream_id, p.acknowledgement) for p in acknowledgements] == [(1, 1)]


def test_an_open_of_a_stream_that_is_over_is_acknowledged_and_opens_nothing(pair):
    client, _exit = pair.open()
    client.stream.reset(ResetCode.NORMAL)
    pair.settle()
    pair.inject(pair.exit, pair.packet(OPEN, 1, 0, 0, REQUEST))
    assert not pair.exit.streams and len(pair.requests) == 1


def test_a_packet_of_a_stream_that_is_over_is_acknowledged_without_memory(pair, receiver):
    client, _ = pair.open()
    client.stream.reset(ResetCode.NORMAL)
    pair.settle()
    pair.inject(receiver, pair.packet(DATA, 1, 41, 7, b"late"))
    receiver.pump(pair.now)
    road = pair.end(receiver, receiver.leg_set._sends).road
    (acknowledgement,) = [p for sent in road for p in iter_train(sent, receiver.session_id) if p.type is ACK]
    assert (acknowledgement.stream_id, acknowledgement.acknowledgement) == (1, 42)
    assert bytes(acknowledgement.payload) == encode_credit(0)


def test_an_acknowledgement_of_a_stream_that_is_over_is_nothing(pair, receiver):
    pair.inject(receiver, pair.packet(ACK, 9, 0, 3, encode_credit(7)))
    receiver.pump(pair.now)
    assert not pair.end(receiver, receiver.leg_set._sends).road
    assert not receiver.counters.dropped


def test_a_packet_before_its_open_is_dropped_and_comes_again(pair):
    pair.inject(pair.exit, pair.packet(DATA, 1, 1, 0, b"early"), pair.packet(FIN, 1, 2, 0))
    assert pair.exit_counters.dropped == {"packet-before-open": 2}
    pair.exit.pump(pair.now)
    assert not pair.end(pair.exit, pair.exit.leg_set._sends).road, "it is not acknowledged"


def test_data_for_a_stream_that_the_client_never_opened_is_dropped(pair):
    pair.inject(pair.client, pair.packet(DATA, 7, 0, 0, b"?"), pair.packet(OPEN, 7, 0, 0, REQUEST))
    assert pair.client_counters.dropped == {"packet-before-open": 2}
    assert not pair.client.streams


# --- the leg is over ----------------------------------------------------------------------------------


def test_a_gap_in_stream_numbers_has_a_bound(pair):
    pair.inject(pair.exit, pair.packet(OPEN, 1 + MAX_GAP, 0, 0, REQUEST))
    assert list(pair.exit.streams) == [1 + MAX_GAP]
    with pytest.raises(FlowControlError) as raised:
        pair.inject(pair.exit, pair.packet(OPEN, 3 + MAX_GAP, 0, 0, REQUEST))
    assert raised.value.reason == "stream-number-gap"
    pair.inject(pair.exit, pair.packet(OPEN, 2 + MAX_GAP, 0, 0, REQUEST), pair.packet(OPEN, 5, 0, 0, REQUEST))
    pair.inject(pair.exit, pair.packet(OPEN, 4 + MAX_GAP, 0, 0, REQUEST))
    assert len(pair.exit.streams) == 4, "one number came in late, so another may be missing"


@pytest.mark.parametrize("type_", [DATA, FIN, OPEN])
def test_stream_0_carries_no_data(pair, receiver, type_):
    with pytest.raises(PeerError) as raised:
        pair.inject(receiver, pair.packet(type_, 0, 0, 0, REQUEST if type_ is OPEN else b""))
    assert raised.value.reason == "packet-out-of-place"


@pytest.mark.parametrize(
    ("type_", "payload", "reason"),
    [
        (ACK, b"short", "ack-bad-length"),
        (RESET, b"", "reset-bad-length"),
        (RESET, b"\0\0", "reset-bad-length"),
    ],
)
def test_a_payload_that_cannot_be_read(pair, receiver, type_, payload, reason):
    pair.open()
    with pytest.raises(WireError) as raised:
        pair.inject(receiver, pair.packet(type_, 1, 1, 1, payload))
    assert raised.value.reason == reason


@pytest.mark.parametrize("payload", [b"", b"\x09" + REQUEST[1:], REQUEST[:-1], REQUEST + b"x"])
def test_an_open_that_cannot_be_read_opens_nothing(pair, payload):
    with pytest.raises(WireError, match=r"^open-"):
        pair.inject(pair.exit, pair.packet(OPEN, 1, 0, 0, payload))
    assert not pair.exit.streams and not pair.requests


def test_an_answer_that_cannot_be_read(pair):
    pair.accepts = False
    pair.open()
    with pytest.raises(WireError, match="open-truncated"):
        pair.inject(pair.client, pair.packet(OPEN, 1, 0, 1, b"\0"))


def test_a_train_without_a_packet_is_refused(pair, receiver):
    with pytest.raises(WireError, match="wire-truncated"):
        pair.inject(receiver)


@pytest.mark.parametrize("payload", [b"", b"\x03" + bytes(20)])
def test_a_keepalive_that_cannot_be_read(pair, receiver, payload):
    with pytest.raises(WireError, match=r"^keepalive-"):
        pair.inject(receiver, pair.packet(KEEPALIVE, 0, 0, 0, payload))


@pytest.mark.parametrize("type_", [PacketType.HANDSHAKE, PacketType.RECONNECT, 0, 10, 15])
def test_packets_that_have_no_place_in_a_train_take_the_whole_train_along(pair, receiver, type_):
    users = pair.open()
    with pytest.raises(WireError):
        pair.inject(receiver, pair.packet(DATA, 1, 1, 1, b"first"), pair.packet(type_, 1))
    assert not users[0].received and not users[1].received


@pytest.mark.parametrize(
    ("numbers", "payload", "follower", "reason"),
    [
        ((7, 0, 0), bytes(9), False, "packet-out-of-place"),
        ((0, 1, 0), bytes(9), False, "packet-out-of-place"),
        ((0, 0, 1), bytes(9), False, "packet-out-of-place"),
        ((0, 0, 0), bytes(9), True, "packet-out-of-place"),
        ((0, 0, 0), bytes(9) + b"x", False, "padding-not-zero"),
    ],
)
def test_padding_that_is_none(pair, receiver, numbers, payload, follower, reason):
    packets = [pair.packet(PADDING, *numbers, payload)]
    if follower:
        packets.append(pair.packet(PADDING, 0, 0, 0, b""))
    with pytest.raises(PeerError, match=reason):
        pair.inject(receiver, *packets)


def test_a_train_of_another_session(pair, receiver):
    train = bytearray(pair.packet(DATA, 1, 1, 1, b"x"))
    train[4] ^= 1
    with pytest.raises(WireError, match="wire-wrong-session"):
        pair.inject(receiver, bytes(train))


def test_a_goodbye_in_the_middle_of_a_train(pair, receiver):
    users = pair.open()
    mine = users[0] if receiver is pair.client else users[1]
    with pytest.raises(SessionExpired):
        pair.inject(
            receiver,
            pair.packet(DATA, 1, 1, 1, b"before"),
            pair.packet(RESET, 0, 0, 0, encode_reset(ResetCode.SHUTDOWN)),
            pair.packet(DATA, 1, 2, 1, b"behind"),
        )
    assert bytes(mine.received) == b"before"
