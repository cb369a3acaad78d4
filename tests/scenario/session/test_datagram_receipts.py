"""What is under way of datagrams is bounded by receipts, whatever the road does."""

from __future__ import annotations

import pytest

from halftunnel_vpn.errors import PeerError
from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.protocol.stream_messages import StreamKind, encode_credit
from halftunnel_vpn.protocol.wire import PacketType, iter_train
from halftunnel_vpn.session.acknowledgements import RECEIPT_DELAY
from halftunnel_vpn.session.receipts import MIN_UNDER_WAY, RIDE_BYTES
from halftunnel_vpn.timers import GRANULARITY

SESSION_ID = bytes(range(16))

RUN = bytes(1000)


def flood(user, count: int) -> None:
    for _ in range(count):
        user.stream.send(RUN)


def runs(user) -> int:
    return sum(event.startswith("run") for event in user.events)


def pump(pair, times: int = 50) -> None:
    """Let both ends send, with nothing delivered."""
    for _ in range(times):
        pair.client.pump(pair.now)
        pair.exit.pump(pair.now)


@pytest.fixture
def wide(pair):
    """The legs of ``pair`` take whatever they are given, as kernels with large buffers do."""
    for leg in pair.legs:
        leg.capacity = 1 << 30
    return pair


@pytest.mark.parametrize("sender", ["client", "exit"])
def test_a_flood_is_bounded_on_the_road_and_goes_on_with_receipts(wide, sender):
    client, exit = wide.open(StreamKind.UDP)
    user, other = (client, exit) if sender == "client" else (exit, client)
    for _ in range(20):
        flood(user, 256)
        pump(wide)
    on_the_road = sum(leg.carried for leg in wide.legs if leg.road)
    assert MIN_UNDER_WAY <= on_the_road < 1.05 * MIN_UNDER_WAY + 2 * len(RUN)
    counters = wide.client_counters if sender == "client" else wide.exit_counters
    assert counters.dropped["datagram-queue-full"]
    wide.settle()
    before = runs(other)
    assert before >= MIN_UNDER_WAY // len(RUN)
    flood(user, 200)
    wide.settle()
    assert runs(other) == before + 200


def test_a_byte_stream_passes_datagrams_that_must_wait(wide):
    datagrams, _ = wide.open(StreamKind.UDP)
    client, exit = wide.open()
    flood(datagrams, 256)
    pump(wide)
    flood(datagrams, 256)
    client.stream.send(b"not behind them")
    wide.client.pump(wide.now)
    wide.deliver()
    assert bytes(exit.received) == b"not behind them"


def test_few_datagrams_cost_no_receipt(wide):
    client, exit = wide.open(StreamKind.UDP)
    back = wide.end(wide.exit, Direction.DOWNSTREAM)
    before = back.state.records_sent
    flood(client, RIDE_BYTES // len(RUN))
    wide.settle()
    assert runs(exit) == RIDE_BYTES // len(RUN)
    assert back.state.records_sent == before


def test_a_receipt_comes_soon_and_says_when_the_records_arrived(wide):
    client, _ = wide.open(StreamKind.UDP)
    sent = wide.end(wide.client, Direction.UPSTREAM).state
    flood(client, 2 * RIDE_BYTES // len(RUN))
    wide.client.pump(wide.now)
    wide.now += 0.01  # on the way
    wide.deliver()
    arrived = wide.now
    wide.exit.pump(wide.now)
    back = wide.end(wide.exit, Direction.DOWNSTREAM)
    assert not back.road and sent.under_way.datagram_bytes, "it waits for company at first"
    while not back.road:
        wide.now = wide.wheel.next_deadline
        wide.wheel.run(wide.now)
        wide.exit.pump(wide.now)
    assert wide.now <= arrived + RECEIPT_DELAY + GRANULARITY
    (receipt,) = iter_train(memoryview(back.road[0]), SESSION_ID)
    assert (receipt.type, receipt.stream_id, receipt.sequence) == (PacketType.ACK, 0, sent.number)
    assert receipt.acknowledgement == int(arrived * 1e6) & 0xFFFF_FFFF
    wide.settle()
    assert not sent.under_way.datagram_bytes


@pytest.mark.parametrize("lost", list(Direction))
def test_a_lost_leg_does_not_stop_datagrams_for_ever(wide, lost):
    """With the leg that carried them what was under way is gone; with the other one the receipts are."""
    client, exit = wide.open(StreamKind.UDP)
    for _ in range(20):
        flood(client, 256)
        pump(wide)
        if lost is Direction.DOWNSTREAM:
            leg = wide.end(wide.client, Direction.UPSTREAM)
            while leg.road:
                leg.peer.owner.train_received(leg.peer.state, memoryview(leg.road.popleft()), wide.now)
    wide.kill(wide.end(wide.client, lost))
    wide.add_leg(lost)
    wide.settle()
    before = runs(exit)
    for _ in range(20):
        flood(client, 50)
        wide.settle()
    assert runs(exit) == before + 1000


def test_datagrams_for_a_stream_that_is_over_are_told_of_too(wide):
    client, exit = wide.open(StreamKind.UDP)
    second, other = wide.open(StreamKind.UDP)
    exit.stream.close()
    wide.exit.pump(wide.now)  # its RESET is still on the road
    for _ in range(20):
        flood(client, 256)
        pump(wide)
    wide.settle()
    flood(second, 200)
    wide.settle()
    assert runs(other) == 200


def test_a_receipt_for_records_that_were_never_sent_breaks_the_protocol(wide):
    sent = wide.end(wide.exit, Direction.DOWNSTREAM).state.records_sent
    with pytest.raises(PeerError, match="receipt-never-sent"):
        wide.inject(wide.exit, wide.packet(PacketType.ACK, 0, payload=encode_credit(sent + 1)))


def test_a_receipt_for_a_leg_that_is_gone_is_ignored(wide):
    wide.inject(wide.exit, wide.packet(PacketType.ACK, 0, 77, payload=encode_credit(1 << 40)))
