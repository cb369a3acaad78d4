"""PADDING packets on arrival: they are counted, and nothing is owed for them."""

from __future__ import annotations

from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.protocol.wire import HEADER_LENGTH, PacketType
from halftunnel_vpn.session.acknowledgements import RECEIPT_DELAY
from halftunnel_vpn.session.receipts import PADDING_RECEIPT_INTERVAL, PADDING_RIDE_BYTES, RIDE_BYTES


def test_padding_is_counted_and_owed_no_answer(pair):
    end = pair.end(pair.client, Direction.DOWNSTREAM)
    pair.advance(1.0)  # the first pings are answered
    end.state.is_watched = end.state.owes_proof = False
    pair.inject(pair.client, pair.packet(PacketType.PADDING, 0, payload=bytes(1000)))
    assert end.state.padding_received == 1000 + HEADER_LENGTH
    assert not end.state.owes_proof and not end.state.is_watched
    before = pair.end(pair.client, Direction.UPSTREAM).state.records_sent
    pair.client.pump(pair.now)
    assert pair.end(pair.client, Direction.UPSTREAM).state.records_sent == before


def test_padding_counts_in_receipts_of_which_there_are_fewer_for_it(pair):
    pair.advance(1.0)
    leg = pair.end(pair.client, Direction.UPSTREAM).state
    before = leg.records_sent
    padding = pair.packet(PacketType.PADDING, 0, payload=bytes(RIDE_BYTES // 2))
    for _ in range(100):  # a second of the upstream's clock
        pair.inject(pair.client, padding)
        pair.advance(0.01)
    assert 3 <= leg.records_sent - before <= 1 / PADDING_RECEIPT_INTERVAL + 2, "with pings"
    pair.advance(1.0)
    before = leg.records_sent
    for _ in range(2 * PADDING_RIDE_BYTES // RIDE_BYTES):
        pair.inject(pair.client, padding)
    pair.advance(RECEIPT_DELAY + 0.01)
    assert leg.records_sent == before + 1, "many bytes at once do not wait"


def test_padding_that_came_before_is_counted_like_the_first_of_it(pair):
    end = pair.end(pair.client, Direction.DOWNSTREAM)
    pair.advance(1.0)
    before = end.state.packets_received, end.state.records_received
    for size in (1000, 1000, 700, 1000):
        pair.inject(pair.client, pair.packet(PacketType.PADDING, 0, payload=bytes(size)))
    assert end.state.padding_received == 3700 + 4 * HEADER_LENGTH
    assert (end.state.packets_received, end.state.records_received) == (before[0] + 4, before[1] + 4)


def test_data_in_front_of_padding_arrives(pair):
    user, _ = pair.open()
    pair.inject(
        pair.client,
        pair.packet(PacketType.DATA, 1, 1, 1, b"data"),
        pair.packet(PacketType.PADDING, 0, payload=bytes(50)),
    )
    assert bytes(user.received) == b"data"
    assert pair.end(pair.client, Direction.DOWNSTREAM).state.padding_received == 50 + HEADER_LENGTH
