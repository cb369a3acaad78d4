"""What is under way on a leg is bounded by receipts: by itself, and for byte streams over any road."""

from __future__ import annotations

import math
import random

import pytest

from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.session.receipts import (
    MAX_ENTRIES,
    MAX_UNDER_WAY,
    MIN_UNDER_WAY,
    PRODUCTS,
    RECEIPT_BYTES,
    RIDE_BYTES,
    ROUND_TRIP_AGE,
    InFlight,
)

TRAIN = 65_000
DEEP = 1 << 30


class Road:
    """A leg by itself: its rate in bytes a second, its round trip in seconds, and receipts.

    With ``tick`` receipts leave every ``tick`` seconds only.
    """

    def __init__(
        self, rate: float, round_trip: float, told_every: int = RECEIPT_BYTES, tick: float = 0.0
    ) -> None:
        self.under_way = InFlight()
        self.told_every, self.tick = told_every, tick
        self.rate, self.round_trip = rate, round_trip
        self.now = 1000.0
        self.record = 0
        self.greatest = 0
        self._free_at = self.now
        self._untold = 0
        self._receipts: list[tuple[float, int]] = []

    def run(self, seconds: float, offer: float | None = None) -> float:
        """Bytes a second that were sent: all that the bound allows, or ``offer`` a second at the most."""
        began, sent = self.now, 0
        while self.now < began + seconds:
            if offer is not None:
                self.under_way.idle()
            if not self.under_way.is_full and (offer is None or sent <= offer * (self.now - began)):
                self._send()
                sent += TRAIN
                continue
            if offer is None:
                self.now = max(self.now, self._receipts[0][0])
            else:
                self.now += 0.001
            while self._receipts and self._receipts[0][0] <= self.now:
                self.under_way.arrived(self._receipts.pop(0)[1], self.now)
        return sent / seconds

    def _send(self) -> None:
        self._free_at = max(self._free_at, self.now) + TRAIN / self.rate
        self.record += 1
        self.under_way.sent(self.record, TRAIN, 0, self.now)
        self.greatest = max(self.greatest, self.under_way.bytes)
        self._untold += TRAIN
        if self._untold >= self.told_every:
            self._tell(self._free_at)

    def _tell(self, time: float) -> None:
        self._untold = 0
        if self.tick:
            time = math.ceil(time / self.tick) * self.tick
        self._receipts.append((time + self.round_trip, self.record))


@pytest.mark.parametrize(
    ("rate", "round_trip"),
    [(25e6, 0.05), (125e6, 0.2), (250e6, 0.0005), (1.25e6, 0.3)],
    ids=["200 Mbit/s, 50 ms", "1 Gbit/s, 200 ms", "2 Gbit/s, 0.5 ms", "10 Mbit/s, 300 ms"],
)
def test_the_bound_grows_until_the_road_is_full_and_not_far_beyond(rate, round_trip):
    road = Road(rate, round_trip)
    road.run(3 + 20 * round_trip)
    assert road.run(2.0) > 0.95 * rate
    product = rate * round_trip + 2 * RECEIPT_BYTES
    assert road.greatest <= MIN_UNDER_WAY + 1.2 * PRODUCTS * product + TRAIN
    assert 0.9 * rate < road.under_way.rate < 1.2 * rate


@pytest.mark.parametrize("round_trip", [0.0005, 0.05])
def test_a_fast_road_is_filled_though_receipts_leave_on_a_clock(round_trip):
    road = Road(250e6, round_trip, tick=0.01)
    road.under_way.interval = road.tick
    road.run(3.0)
    assert road.run(2.0) > 0.95 * road.rate


@pytest.mark.parametrize("is_clocked", [True, False])
def test_the_rate_of_a_clock_does_not_pass_for_that_of_a_path_whose_ends_are_busy(is_clocked):
    under_way, draw, received = InFlight(), random.Random(3), 0.0
    for record in range(1, 1500):
        now = 1000.0 + record * 0.01
        under_way.is_clocked = is_clocked
        under_way.sent(record, 9_500, 0, now)
        received = max(received, now + 0.025 + draw.uniform(0, 0.04) * (record % 200 > 20))
        under_way.arrived(record, received + 0.025, int(received * 1e6) & 0xFFFF_FFFF)
    assert (under_way.pacer.pace == 0.0) == is_clocked


def test_little_traffic_says_nothing_about_the_rate():
    road = Road(25e6, 0.05)
    road.run(5.0)
    rate, limit = road.under_way.rate, road.under_way.limit
    road.run(60.0, offer=100e3)
    assert road.under_way.rate == pytest.approx(rate, rel=0.01)
    assert road.under_way.limit == pytest.approx(limit, rel=0.01)
    assert road.run(2.0) > 0.9 * 25e6


def test_a_road_that_becomes_slower_gets_a_smaller_bound():
    road = Road(25e6, 0.05)
    road.run(5.0)
    road.rate = 2.5e6
    road.run(10.0)
    assert road.under_way.rate < 1.2 * 2.5e6
    assert road.under_way.bytes < MIN_UNDER_WAY + 2 * PRODUCTS * 2.5e6 * 0.2


@pytest.mark.parametrize("told_every", [RECEIPT_BYTES, RIDE_BYTES], ids=["in time", "of every record"])
def test_a_queue_of_our_own_does_not_pass_for_a_longer_road(told_every):
    """The bound keeps a queue standing, so no round trip is as short as the first ones were."""
    road = Road(25e6, 0.05, told_every)
    road.run(5.0)
    limit = road.under_way.limit
    sent = road.run(10 * ROUND_TRIP_AGE)
    assert road.under_way.limit < 1.5 * limit
    assert sent > 0.97 * 25e6, "measuring it costs little"


def test_a_road_that_becomes_longer_is_filled_again():
    road = Road(25e6, 0.05)
    road.run(5.0)
    road.round_trip = 0.3
    road.run(2 * ROUND_TRIP_AGE)
    assert road.run(10.0) > 0.9 * 25e6


def test_the_bound_has_a_bound():
    under_way = InFlight()
    for record in range(1, 100):
        under_way.sent(record, 1 << 30, 0, record)
        under_way.arrived(record, record + 1.0)
    assert under_way.bytes == 0
    assert under_way.limit == MAX_UNDER_WAY


def test_a_peer_that_never_tells_costs_little_memory():
    under_way = InFlight()
    for record in range(4 * MAX_ENTRIES):
        under_way.sent(record + 1, 40 if record % 2 else 60_000, 0, float(record))
    assert len(under_way._entries) <= MAX_ENTRIES
    under_way.arrived(4 * MAX_ENTRIES, 1e6)
    assert under_way.bytes == 0 and not under_way._entries


# --- two sessions -----------------------------------------------------------------------------------


@pytest.fixture
def deep(pair):
    """The legs of ``pair`` take whatever they are given, as kernels with large buffers do."""
    for leg in pair.legs:
        leg.capacity = DEEP
    return pair


def on_the_road(pair) -> int:
    return sum(len(train) for leg in pair.legs for train in leg.road)


def feed(user, pair, times: int = 40) -> None:
    """Send as long as the stream takes it, with nothing delivered."""
    for _ in range(times):
        while user.stream.room >= TRAIN:
            user.stream.send(bytes(TRAIN))
        pair.client.pump(pair.now)
        pair.exit.pump(pair.now)


def warm_up(user, pair) -> None:
    """Bytes enough to make the stream's window large and the stream bulk, at a rate that says nothing."""
    for _ in range(12):
        feed(user, pair, 1)
        pair.settle()


@pytest.mark.parametrize("sender", ["client", "exit"])
def test_bulk_waits_and_young_streams_and_acknowledgements_pass(deep, sender):
    users = deep.open()
    young = deep.open()
    if sender == "exit":
        users, young = users[::-1], young[::-1]
    warm_up(users[0], deep)
    feed(users[0], deep)
    waiting = on_the_road(deep)
    assert MIN_UNDER_WAY <= waiting <= MIN_UNDER_WAY + 2 * TRAIN
    young[0].stream.send(b"not behind it")
    feed(users[0], deep, 1)
    assert waiting < on_the_road(deep) < waiting + 200
    deep.settle()
    assert young[1].received == b"not behind it"


@pytest.mark.parametrize("lost", list(Direction))
@pytest.mark.parametrize("swallowed", [False, True], ids=["closed", "swallowed"])
def test_a_lost_leg_leaves_nobody_waiting(deep, lost, swallowed):
    """With the leg that carried them what was under way is gone; with the other one the receipts are."""
    client, exit = deep.open()
    warm_up(client, deep)
    feed(client, deep)
    up = deep.end(deep.client, Direction.UPSTREAM)
    if lost is Direction.DOWNSTREAM:
        while up.road:
            up.peer.owner.train_received(up.peer.state, memoryview(up.road.popleft()), deep.now)
        deep.exit.pump(deep.now)
    victim = deep.end(deep.client, lost)
    if swallowed:
        deep.swallow(victim)
    deep.kill(victim)
    for end in deep.add_leg(lost):
        end.capacity = DEEP
    deep.settle()
    before = len(exit.received)
    for _ in range(50):
        feed(client, deep, 1)
        deep.settle()
    assert len(exit.received) - before >= 50 * TRAIN
    deep.advance(1.0)
    assert client.stream.sending.finished


def test_receipts_that_all_get_lost_are_made_good_by_the_next_ping(deep):
    client, _ = deep.open()
    warm_up(client, deep)
    feed(client, deep)
    down = deep.end(deep.exit, Direction.DOWNSTREAM)
    up = deep.end(deep.client, Direction.UPSTREAM)
    while up.road:
        up.peer.owner.train_received(up.peer.state, memoryview(up.road.popleft()), deep.now)
    deep.exit.pump(deep.now)
    down.road.clear()
    assert up.state.under_way.is_full
    deep.advance(60.0)
    assert not up.state.under_way.is_full
    feed(client, deep, 1)
    deep.advance(60.0)
    assert client.stream.sending.finished


def test_several_legs_with_bounds_of_their_own_carry_everything(make_pair):
    pair = make_pair(3, 2)
    for leg in pair.legs:
        leg.capacity = DEEP
    client, exit = pair.open()
    numbers = random.Random(5)
    sent = bytearray()
    for _ in range(60):
        while client.stream.room >= TRAIN and numbers.random() < 0.9:
            piece = numbers.randbytes(TRAIN)
            client.stream.send(piece)
            sent += piece
        pair.client.pump(pair.now)
        for leg in pair.ends(pair.client, Direction.UPSTREAM):
            assert leg.state.under_way.bytes <= leg.state.under_way.limit + 2 * TRAIN
        if numbers.random() < 0.5:
            pair.settle(shuffle=True)
    pair.settle(shuffle=True)
    assert exit.received == sent
