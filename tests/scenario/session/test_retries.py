"""Packets that nothing acknowledges although their leg seems alive, and acknowledgements that get lost."""

from __future__ import annotations

import pytest

from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.protocol.stream_messages import ResetCode, StreamKind
from halftunnel_vpn.protocol.wire import PacketType, iter_train
from halftunnel_vpn.session.acknowledgements import ACK_DELAY, ACK_LENGTH, MAX_STATELESS
from halftunnel_vpn.session.receive_side import ACK_PACKETS
from halftunnel_vpn.session.session import RETRY_AFTER, RETRY_INTERVAL
from halftunnel_vpn.session.train import Train


@pytest.fixture
def swallow(pair):
    """Lose what is on the client's upstream road now, while the leg goes on as if nothing were."""

    def lose():
        pair.client.pump(pair.now)
        road = pair.end(pair.client, Direction.UPSTREAM).road
        assert road
        road.clear()

    return lose


def acknowledgements(pair, session):
    """The ACK packets of streams that ``session`` has put on its road, as (stream, number)."""
    road = pair.end(session, session.leg_set._sends).road
    packets = [packet for train in road for packet in iter_train(train, session.session_id)]
    return [(p.stream_id, p.acknowledgement) for p in packets if p.type is PacketType.ACK and p.stream_id]


def test_a_packet_that_vanished_goes_out_again_on_any_leg(pair, swallow):
    client, exit = pair.open()
    pair.advance(0.1)
    client.stream.send(b"vanished")
    swallow()
    pair.advance(RETRY_AFTER - RETRY_INTERVAL)
    assert not exit.received
    pair.advance(2 * RETRY_INTERVAL)
    assert bytes(exit.received) == b"vanished"
    assert pair.client_counters.counted["packets-retried"] == 1


def test_each_vanished_packet_of_a_row_comes_after_a_while(pair, swallow):
    client, exit = pair.open()
    pair.advance(0.1)
    for number in range(3):
        client.stream.send(b"%d" % number)
        pair.client.pump(pair.now)
    pair.end(pair.client, Direction.UPSTREAM).road.clear()
    client.stream.send(b"arrives and waits")
    pair.settle()
    assert not exit.received
    pair.advance(60.0)
    assert bytes(exit.received) == b"012arrives and waits"


@pytest.mark.parametrize("kind", [StreamKind.TCP, StreamKind.UDP])
def test_an_open_that_vanished_is_asked_again(pair, swallow, kind):
    pair.ask(kind)
    swallow()
    assert not pair.requests
    pair.advance(RETRY_AFTER + RETRY_INTERVAL)
    assert len(pair.requests) == 1


def test_a_reset_that_vanished_is_said_again(pair, swallow):
    client, exit = pair.open()
    client.stream.reset(ResetCode.NORMAL)
    swallow()
    pair.advance(RETRY_AFTER + RETRY_INTERVAL)
    assert exit.events == ["aborted NORMAL"]
    assert not pair.client.streams


def test_a_packet_that_is_sent_again_in_vain_is_acknowledged_again(pair):
    client, exit = pair.open()
    pair.advance(0.1)
    client.stream.send(b"once")
    pair.client.pump(pair.now)
    pair.deliver()
    pair.exit.pump(pair.now)
    down = pair.end(pair.exit, Direction.DOWNSTREAM)
    down.road.clear()
    pair.exit.context.acknowledgements.clear()  # what it still had to say of it vanishes as well
    pair.advance(RETRY_AFTER + 2 * RETRY_INTERVAL)
    assert bytes(exit.received) == b"once"
    assert not client.stream.sending.retained


def test_nothing_is_sent_again_while_all_is_well(pair):
    client, exit = pair.open()
    for _ in range(40):
        client.stream.send(b"x" * 100)
        pair.advance(1.0)
    assert len(exit.received) == 4000
    assert not pair.client_counters.counted["packets-retried"]
    assert not pair.exit_counters.counted["packets-retried"]


def test_an_acknowledgement_waits_for_a_packet_that_carries_it(pair):
    client, exit = pair.open()
    pair.advance(0.1)
    client.stream.send(b"question")
    pair.client.pump(pair.now)
    pair.deliver()
    exit.stream.send(b"answer")
    pair.exit.pump(pair.now)
    assert acknowledgements(pair, pair.exit) == []
    pair.deliver()
    assert client.stream.sending.finished, "the answer has told it"
    pair.now += 2 * ACK_DELAY
    pair.wheel.run(pair.now)
    pair.exit.pump(pair.now)
    assert acknowledgements(pair, pair.exit) == []


def test_an_acknowledgement_leaves_alone_after_its_delay(pair):
    client, _ = pair.open()
    pair.advance(0.1)
    client.stream.send(b"question")
    pair.client.pump(pair.now)
    pair.deliver()
    pair.now += ACK_DELAY / 2
    pair.wheel.run(pair.now)
    pair.exit.pump(pair.now)
    assert acknowledgements(pair, pair.exit) == []
    pair.now += ACK_DELAY
    pair.wheel.run(pair.now)
    pair.exit.pump(pair.now)
    assert acknowledgements(pair, pair.exit) == [(1, 2)]


def test_one_stream_does_not_cut_the_wait_of_another_short(pair):
    client, exit = pair.open()
    other, _ = pair.open()
    pair.advance(0.1)
    for user in (client, other, client):  # the client's first one is answered meanwhile
        user.stream.send(b"question")
        pair.client.pump(pair.now)
        pair.deliver()
        if user is other:
            exit.stream.send(b"answer")
            pair.exit.pump(pair.now)
        assert acknowledgements(pair, pair.exit) == []
        pair.now += ACK_DELAY / 2
    pair.now += ACK_DELAY / 4  # due: what came for the other, but not the second one of the client
    pair.wheel.run(pair.now)
    pair.exit.pump(pair.now)
    assert acknowledgements(pair, pair.exit) == [(other.stream.stream_id, 2)]
    pair.now += ACK_DELAY
    pair.wheel.run(pair.now)
    pair.exit.pump(pair.now)
    assert acknowledgements(pair, pair.exit) == [(other.stream.stream_id, 2), (client.stream.stream_id, 3)]


def test_many_small_packets_are_acknowledged_at_once(pair):
    client, _ = pair.open()
    pair.advance(0.1)
    for _ in range(ACK_PACKETS):
        client.stream.send(b"x")
        pair.client.pump(pair.now)
        pair.deliver()
    pair.exit.pump(pair.now)
    assert acknowledgements(pair, pair.exit) == [(1, ACK_PACKETS + 1)]


@pytest.mark.parametrize("number", [1, 3], ids=["a repetition", "a gap"])
def test_a_repetition_and_a_gap_are_told_at_once(pair, number):
    client, exit = pair.open()
    client.stream.send(b"first")
    pair.settle()
    pair.advance(0.1)
    pair.inject(pair.exit, pair.packet(PacketType.DATA, 1, number, 1, b"first"))
    pair.exit.pump(pair.now)
    assert acknowledgements(pair, pair.exit) == [(1, 2)]
    assert bytes(exit.received) == b"first"


def test_a_lost_leg_makes_its_sender_acknowledge_every_stream_again(pair):
    users = [pair.open() for _ in range(5)]
    pair.advance(0.1)
    down = pair.end(pair.exit, Direction.DOWNSTREAM)
    pair.kill(down)
    pair.add_leg(Direction.DOWNSTREAM)
    pair.exit.pump(pair.now)
    assert sorted(acknowledgements(pair, pair.exit)) == [(number, 1) for number in range(1, 6)]
    assert len(users) == 5


def test_acknowledgements_of_streams_that_are_over_have_a_bound(pair):
    pair.exit._table.numbers.highest = 3 * MAX_STATELESS
    for number in range(1, MAX_STATELESS + 11):
        pair.inject(pair.exit, pair.packet(PacketType.FIN, number, 5))
    assert pair.exit_counters.dropped == {"ack-queue-full": 10}
    pair.inject(pair.exit, pair.packet(PacketType.FIN, 1, 6))
    assert pair.exit_counters.dropped == {"ack-queue-full": 10}, "a newer number replaces the old one"
    pair.exit.pump(pair.now)
    told = dict(acknowledgements(pair, pair.exit))
    assert len(told) <= MAX_STATELESS and all(number in (6, 7) for number in told.values())


def test_acknowledgements_fill_several_trains_if_need_be(pair):
    pair.end(pair.exit, Direction.DOWNSTREAM).capacity = 100
    pair.exit._table.numbers.highest = MAX_STATELESS
    count = 2 * Train().room // ACK_LENGTH
    for number in range(1, count + 1):
        pair.inject(pair.exit, pair.packet(PacketType.FIN, number, 5))
    pair.exit.pump(pair.now)
    assert len(acknowledgements(pair, pair.exit)) == count
