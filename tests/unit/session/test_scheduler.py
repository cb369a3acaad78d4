"""Turns of bulk streams: whole trains, pieces that stay whole, and a fair share in the end."""

from __future__ import annotations

import pytest

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.protocol.records import MAX_TRAIN
from halftunnel_vpn.protocol.stream_messages import OpenRequest, StreamKind
from halftunnel_vpn.protocol.wire import HEADER_LENGTH
from halftunnel_vpn.session.byte_stream import YOUNG_BYTES
from halftunnel_vpn.session.limits import SessionLimits
from halftunnel_vpn.session.send_side import UNSENT_LIMIT
from halftunnel_vpn.session.session import Session
from halftunnel_vpn.session.session_options import SendingOptions, SessionOwner
from halftunnel_vpn.session.train import Train
from halftunnel_vpn.timers import Wheel

REQUEST = OpenRequest(StreamKind.TCP, bytes([192, 0, 2, 1]), 80, 0)


@pytest.fixture
def session():
    return Session(
        bytes(range(16)),
        SessionOwner(Wheel(lambda deadline: None), bytes, Counters(), wake=lambda: None),
        SessionLimits(),
        0.0,
        is_client=True,
        sending=SendingOptions(initial_credit=1 << 40),
    )


@pytest.fixture
def bulk_stream(session, leg):
    """Makes streams that have sent enough to count as bulk, with an empty queue."""

    def make():
        stream = session.open_stream(REQUEST, handler=None, now=0.0)
        session.context.scheduler.fill(Train(), leg, 0.0)
        stream.sending.burst = YOUNG_BYTES
        stream.sending.last_active = 0.0
        return stream

    return make


def fill_up(stream, piece):
    while stream.sending.unsent_bytes + piece <= UNSENT_LIMIT:
        stream.send(bytes(piece), 0.0)


def trains(session, leg, packets, count):
    """What ``count`` trains carry: stream and payload length of each packet."""
    for _ in range(count):
        train = Train()
        session.context.scheduler.fill(train, leg, 0.0)
        yield [(packet.stream_id, len(packet.payload)) for packet in packets(train)]


@pytest.mark.parametrize("piece", [64_240, 65_000, MAX_TRAIN - HEADER_LENGTH])
def test_a_piece_is_one_packet_and_one_train(session, bulk_stream, leg, packets, piece):
    stream = bulk_stream()
    fill_up(stream, piece)
    count = UNSENT_LIMIT // piece
    assert list(trains(session, leg, packets, count)) == [[(1, piece)]] * count


@pytest.mark.parametrize("piece", [1_460, 20_000, 64_240])
def test_pieces_stay_whole_when_streams_take_turns(session, bulk_stream, leg, packets, piece):
    streams = [bulk_stream() for _ in range(3)]
    for stream in streams:
        fill_up(stream, piece)
    for train in trains(session, leg, packets, 12):
        used = sum(HEADER_LENGTH + length for _, length in train)
        # what is torn to fill a train up is less than half a train away from being full
        assert len(train) <= len(streams) and used > MAX_TRAIN // 2
        assert piece < MAX_TRAIN // 2 or [length for _, length in train] == [piece]


def test_turns_of_unlike_pieces_are_fair_in_the_end(session, bulk_stream, leg, packets):
    pieces = {
        stream.stream_id: piece for stream, piece in ((bulk_stream(), p) for p in (9_000, 40_000, 65_000))
    }
    carried = dict.fromkeys(pieces, 0)
    for _ in range(300):
        for number, piece in pieces.items():
            fill_up(session.streams[number], piece)
        for train in trains(session, leg, packets, 1):
            for number, length in train:
                carried[number] += length
        for number in pieces:  # as if all had been acknowledged
            session.streams[number].sending.acknowledge(session.streams[number].sending.next_sequence)
    assert min(carried.values()) > 0.95 * max(carried.values())


def test_a_stream_that_ran_dry_keeps_its_debt_and_no_claim(session, bulk_stream, leg, packets):
    stream, other = bulk_stream(), bulk_stream()
    stream.send(bytes(100), 0.0)
    list(trains(session, leg, packets, 1))
    assert stream.queue is None and stream.deficit <= 0
    fill_up(stream, 65_000)
    fill_up(other, 65_000)
    carriers = [train[0][0] for train in trains(session, leg, packets, 8)]
    assert carriers.count(stream.stream_id) == carriers.count(other.stream_id) == 4


@pytest.mark.parametrize("over", [1, 2, 5])
def test_streams_that_are_over_do_not_end_the_turn_of_those_behind_them(
    session, bulk_stream, leg, packets, over
):
    streams = [bulk_stream() for _ in range(over + 1)]
    for stream in streams:
        stream.send(bytes(1000), 0.0)
    for stream in streams[:-1]:
        stream.sending.drop_everything()  # reset by the peer while they waited
    assert list(trains(session, leg, packets, 1)) == [[(streams[-1].stream_id, 1000)]]
    assert not session.context.scheduler
