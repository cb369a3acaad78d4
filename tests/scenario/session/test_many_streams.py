"""Many streams over several legs, of which some are lost all the time."""

from __future__ import annotations

import hashlib
import random

import pytest

from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.protocol.stream_messages import StreamKind
from halftunnel_vpn.protocol.wire import PacketType
from halftunnel_vpn.session.legs import Weighted
from halftunnel_vpn.session.limits import SessionLimits
from halftunnel_vpn.session.send_side import RING
from halftunnel_vpn.session.session import TRAINS_PER_PUMP


@pytest.mark.parametrize("seed", range(4))
def test_five_hundred_streams_survive_the_loss_of_every_leg(make_pair, seed):
    choose = random.Random(seed)
    pair = make_pair(3, 3, seed=seed, limits=SessionLimits(window_pool=16 * 1024 * 1024))
    users = [pair.open() for _ in range(500)]
    up = [hashlib.sha256() for _ in users]
    down = [hashlib.sha256() for _ in users]
    for turn in range(12):
        for index in choose.sample(range(500), 150):
            for side, digest in ((0, up[index]), (1, down[index])):
                user = users[index][side]
                if size := min(user.stream.room, choose.choice((10, 1500, 20_000))):
                    data = choose.randbytes(size)
                    user.stream.send(data)
                    digest.update(data)
        pair.client.pump(pair.now)
        pair.exit.pump(pair.now)
        direction = choose.choice(list(Direction))
        if choose.random() < 0.5:
            pair.deliver(shuffle=True)
        victims = pair.ends(pair.client, direction)
        pair.kill(choose.choice(victims), lose=turn % 3 > 0)
        pair.add_leg(direction)
    for client, exit in users:
        client.stream.finish()
        exit.stream.finish()
    pair.settle(shuffle=True)
    for index, (client, exit) in enumerate(users):
        assert hashlib.sha256(exit.received).digest() == up[index].digest()
        assert hashlib.sha256(client.received).digest() == down[index].digest()
        assert client.events == ["opened", "finished"] and exit.events == ["finished"]
    pair.advance(60.0)
    assert not pair.client.streams and not pair.exit.streams
    assert (
        pair.client.context.window_pool.available
        == pair.exit.context.window_pool.available
        == 16 * 1024 * 1024
    )
    assert not pair.client_counters.dropped and not pair.exit_counters.dropped


def test_without_a_leg_everything_waits_and_nothing_spins(pair):
    users = [pair.open() for _ in range(50)]
    for leg in list(pair.legs):
        if leg in pair.legs:
            pair.kill(leg)
    for client, exit in users:
        client.stream.send(b"up")
        exit.stream.send(b"down")
    late = [pair.ask() for _ in range(20)]
    wakes = []
    pair.client.context.wake = lambda: wakes.append(1)
    pair.client.pump(pair.now)
    assert not wakes, "a pump that can send nothing does not ask for another"
    pair.advance(100.0)
    assert all(not exit.received for _, exit in users)
    pair.add_leg(Direction.UPSTREAM)
    pair.add_leg(Direction.DOWNSTREAM)
    pair.settle()
    assert all((bytes(exit.received), bytes(client.received)) == (b"up", b"down") for client, exit in users)
    assert all(user.events == ["opened"] for user in late)


def test_a_pump_yields_after_a_batch_and_asks_for_more(pair):
    client, _exit = pair.open()
    client.stream.sending.credit = 1 << 40
    leg = pair.end(pair.client, Direction.UPSTREAM)
    leg.capacity = 1000
    users = [client] + [pair.open()[0] for _ in range(30)]
    for user in users:
        user.stream.sending.credit = 1 << 40
        user.stream.send(bytes(100_000))
    wakes = []
    pair.client.context.wake = lambda: wakes.append(1)
    pair.client.pump(pair.now)
    assert len(leg.road) == TRAINS_PER_PUMP and wakes


def test_a_leg_that_is_not_writable_is_left_alone(make_pair):
    pair = make_pair(2, 1)
    slow, fast = pair.ends(pair.client, Direction.UPSTREAM)
    client, _exit = pair.open()
    pair.advance(0.1)
    slow.writable = False
    before = slow.carried
    client.stream.send(b"x" * 60_000)
    pair.client.pump(pair.now)
    assert slow.carried == before and fast.road


def test_the_policy_shares_the_work(make_pair):
    pair = make_pair(2, 1)
    heavy, light = pair.ends(pair.client, Direction.UPSTREAM)
    heavy.state.weight, light.state.weight = 3, 1
    pair.client._policy = Weighted()
    client, exit = pair.open()
    for _ in range(200):
        if room := min(client.stream.room, 20_000):
            client.stream.send(bytes(room))
        pair.settle()
    assert len(exit.received) > 1_000_000
    assert heavy.carried == pytest.approx(3 * light.carried, rel=0.1)


@pytest.mark.parametrize("replaced", [0, 1], ids=["heavy", "light"])
def test_the_shares_stay_when_a_leg_is_replaced(make_pair, replaced):
    pair = make_pair(2, 1)
    legs = pair.ends(pair.client, Direction.UPSTREAM)
    weights = 3, 1
    for leg, weight in zip(legs, weights, strict=True):
        leg.state.weight = weight
    pair.client._policy = Weighted()
    client, _ = pair.open()

    def send(times):
        for _ in range(times):
            client.stream.send(bytes(min(client.stream.room, 20_000)))
            pair.settle()

    send(200)
    pair.client.leg_set.retire(legs[replaced].state, pair.now)
    legs[replaced] = pair.add_leg(Direction.UPSTREAM, weight=weights[replaced])[0]
    before = [leg.carried for leg in legs]
    send(100)
    heavy, light = (leg.carried - count for leg, count in zip(legs, before, strict=True))
    assert heavy == pytest.approx(3 * light, rel=0.1)


def test_streams_whose_open_is_on_another_leg_let_the_others_pass(make_pair):
    pair = make_pair(2, 1)
    first, second = pair.ends(pair.client, Direction.UPSTREAM)
    ready, ready_exit = pair.open()
    pair.advance(0.1)
    second.writable = False
    opening = [pair.ask() for _ in range(5)]
    pair.client.pump(pair.now)
    held, first.road, first.writable, second.writable = first.road, type(first.road)(), False, True
    assert held
    for user in opening:
        user.stream.sending.credit = 1000
        user.stream.send(b"early")
    ready.stream.send(b"passes")
    pair.settle()
    assert bytes(ready_exit.received) == b"passes"
    assert list(pair.exit_users) == [1]
    first.road, first.writable = held, True
    pair.settle()
    assert [bytes(pair.exit_users[user.stream.stream_id].received) for user in opening] == [b"early"] * 5


@pytest.fixture
def busy_bulk(pair):
    """A bulk stream, on a leg that takes one train at a time; returns its ends."""
    bulk, bulk_exit = pair.open()
    pair.advance(0.1)
    for leg in pair.legs:
        leg.capacity = 1
    bulk.stream.sending.credit = 1 << 40
    for _ in range(2):
        bulk.stream.send(bytes(60_000))
        pair.settle()
    assert not bulk.stream.is_urgent
    return bulk, bulk_exit


def test_a_query_overtakes_bulk_and_waits_for_one_turn_of_the_datagrams(pair, busy_bulk):
    bulk, _ = busy_bulk
    datagrams, _ = pair.open(StreamKind.UDP)
    query, query_exit = pair.open(StreamKind.DNS)
    for _ in range(6):
        bulk.stream.send(bytes(60_000))
    for _ in range(200):
        datagrams.stream.send(bytes(1200))
    query.stream.send(b"query")
    for _ in range(2):
        pair.client.pump(pair.now)
        pair.deliver()
    assert bytes(query_exit.received) == b"query"


@pytest.mark.parametrize("run", [1200, 20_000, 60_000], ids=str)
def test_a_flood_of_datagrams_leaves_bulk_its_share(pair, busy_bulk, run):
    bulk, bulk_exit = busy_bulk
    datagrams, datagrams_exit = pair.open(StreamKind.UDP)
    datagrams_exit.run_received = lambda data, now: datagrams_exit.received.extend(data)
    bulk_exit.received.clear()
    for _ in range(60):
        while bulk.stream.room > 60_000:
            bulk.stream.send(bytes(60_000))
        while datagrams.stream._runs_bytes < 200_000:
            datagrams.stream.send(bytes(run))
        pair.client.pump(pair.now)
        pair.deliver()
        pair.exit.pump(pair.now)
        pair.deliver()
    whole = len(bulk_exit.received) + len(datagrams_exit.received)
    assert 0.15 < len(bulk_exit.received) / whole < 0.35


def test_a_bulk_stream_that_pauses_is_young_again(pair):
    client, _ = pair.open()
    client.stream.sending.credit = 1 << 40
    client.stream.send(bytes(100_000))
    pair.settle()
    assert not client.stream.is_urgent
    pair.advance(1.0)
    client.stream.send(b"ls\n")
    assert client.stream.is_urgent


def test_a_stream_that_has_filled_its_ring_goes_on_when_some_is_acknowledged(pair):
    client, exit = pair.open()
    pair.advance(0.1)
    client.stream.sending.credit = 1 << 40
    pair.end(pair.client, Direction.UPSTREAM).capacity = 2 * RING
    for _ in range(RING):
        client.stream.send(b"x")
        pair.client.pump(pair.now)
    client.stream.send(b"the rest")
    client.stream.finish()
    pair.client.pump(pair.now)
    assert client.stream.sending.unsent_bytes == len(b"the rest")
    pair.settle()
    assert bytes(exit.received) == b"x" * RING + b"the rest" and exit.events == ["finished"]


def test_a_stream_without_credit_goes_on_when_its_reader_does(pair):
    client, exit = pair.open()
    exit.reads = False
    granted = exit.stream.receiving.window.granted
    client.stream.send(bytes(granted))
    client.stream.send(b"the rest")
    pair.settle()
    assert len(exit.received) == granted
    exit.read_all()
    pair.settle()
    assert len(exit.received) == granted + len(b"the rest")


def test_a_datagram_stream_waits_for_its_open_on_its_leg(make_pair):
    pair = make_pair(2, 1)
    first, second = pair.ends(pair.client, Direction.UPSTREAM)
    second.writable = False
    user = pair.ask(StreamKind.UDP)
    pair.client.pump(pair.now)
    held, first.road, first.writable, second.writable = first.road, type(first.road)(), False, True
    user.stream.send(b"run")
    pair.settle()
    assert not pair.requests
    first.road, first.writable = held, True
    pair.settle()
    assert pair.exit_users[1].events == ["run b'run'"]


def test_a_fin_on_a_datagram_stream_means_nothing(pair):
    client, exit = pair.open(StreamKind.UDP)
    pair.inject(pair.exit, pair.packet(PacketType.FIN, 1, 3))
    client.stream.send(b"still there")
    pair.settle()
    assert exit.events == ["run b'still there'"]
