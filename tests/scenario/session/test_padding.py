"""PADDING packets on arrival: they are counted, and nothing is owed for them."""

from __future__ import annotations

from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.protocol.wire import HEADER_LENGTH, PacketType
from halftunnel_vpn.session.acknowledgements import PADDING_RECEIPT_DELAY
from halftunnel_vpn.session.receipts import RIDE_BYTES


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


def test_padding_counts_in_receipts_which_wait_longer_for_it(pair):
    pair.advance(1.0)
    leg = pair.end(pair.client, Direction.UPSTREAM).state
    before = leg.records_sent
    pair.inject(pair.client, pair.packet(PacketType.PADDING, 0, payload=bytes(RIDE_BYTES)))
    pair.advance(PADDING_RECEIPT_DELAY / 2)
    assert leg.records_sent == before
    pair.advance(PADDING_RECEIPT_DELAY)
    assert leg.records_sent == before + 1


def test_data_in_front_of_padding_arrives(pair):
    user, _ = pair.open()
    pair.inject(
        pair.client,
        pair.packet(PacketType.DATA, 1, 1, 1, b"data"),
        pair.packet(PacketType.PADDING, 0, payload=bytes(50)),
    )
    assert bytes(user.received) == b"data"
    assert pair.end(pair.client, Direction.DOWNSTREAM).state.padding_received == 50 + HEADER_LENGTH
