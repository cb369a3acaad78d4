"""Directions on a clock: what leaves says nothing of what is in it, and nothing is lost or late for it."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.protocol.records import TAG_LENGTH
from halftunnel_vpn.protocol.stream_messages import Keepalive, KeepaliveKind, StreamKind
from halftunnel_vpn.protocol.wire import PacketType, iter_train
from halftunnel_vpn.session.clock_parameters import HOLD, TICK, UP_RAMP, downstream_clock, upstream_clock
from halftunnel_vpn.session.leg_lottery import BatchedWeightedRandom
from halftunnel_vpn.session.limits import SessionLimits
from halftunnel_vpn.session.padding_budget import PaddingBudget
from halftunnel_vpn.session.shaping import IN_FLIGHT_TIME
from halftunnel_vpn.session.shaping_plan import ShaperState, ShapingPlan
from halftunnel_vpn.session.slot_writer import MAX_HELD
from halftunnel_vpn.timers import GRANULARITY

SEED = bytes([0, 128, 128])
SESSION_ID = bytes(range(16))


class Tap:
    """Writes down what each leg of one end sends: time, leg, bytes, and the packets."""

    def __init__(self, pair, owner) -> None:
        self.records: list[tuple[float, int, int, list]] = []
        for leg in pair.legs:
            if leg.owner is owner:
                self._listen(pair, leg)

    def _listen(self, pair, leg) -> None:
        send = leg.send_train

        def send_train(parts):
            train = b"".join(parts)
            packets = iter_train(train, SESSION_ID)
            self.records.append((pair.now, leg.state.number, len(train) + TAG_LENGTH, packets))
            return send(parts)

        leg.send_train = send_train

    def of(self, direction_legs=None):
        return [record for record in self.records if record[3][-1].type is PacketType.PADDING]

    def others(self):
        return [record for record in self.records if record[3][-1].type is not PacketType.PADDING]


def plan(clock, *, overhead=0, budget=0):
    notices: list[str] = []
    made = ShapingPlan(clock, PaddingBudget(overhead=overhead, budget=budget), notices.append)
    return made, notices


@pytest.fixture
def split(make_pair):
    """A pair with the upstream on a clock."""

    def make(*, limits=None, **options):
        legs = {"upstream": options.pop("upstream", 1), "downstream": options.pop("downstream", 1)}
        shaping, notices = plan(upstream_clock(SEED, stops=False, bulk_after=1.0), **options)
        pair = make_pair(**legs, limits=limits, client_shaping=shaping)
        pair.notices = notices
        pair.advance(2.0)  # the first pings
        return pair

    return make


@pytest.fixture
def strong(make_pair):
    """A pair with both directions on a clock."""

    def make(**options):
        legs = {"upstream": options.pop("upstream", 1), "downstream": options.pop("downstream", 1)}
        shaping, notices = plan(upstream_clock(SEED, stops=True, bulk_after=5.0), **options)
        exit_shaping, _ = plan(downstream_clock(SEED, bulk_after=5.0))
        pair = make_pair(**legs, client_shaping=shaping, exit_shaping=exit_shaping)
        pair.notices = notices
        pair.advance(2.0)
        return pair

    return make


def gaps(records):
    times = [record[0] for record in records]
    return [round(after - before, 6) for before, after in pairwise(times)]


def off_pace(records):
    """What is not where the clock of the upstream has a record; the first one leaves at once."""
    start = records[0][0]
    found = []
    for before, after in pairwise(record[0] for record in records[1:]):
        tick = TICK * UP_RAMP[0].ticks if before - start < UP_RAMP[0].until - 1e-6 else TICK
        if round(after - before, 6) != tick:
            found.append((before - start, after - before))
    return found


def lengths(records):
    """How long each activity took, in seconds."""
    starts = [records[0][0]]
    ends = []
    for before, after in pairwise(record[0] for record in records):
        if after - before > 2 * TICK:
            ends.append(before)
            starts.append(after)
    ends.append(records[-1][0])
    return [end - start + TICK for start, end in zip(starts, ends, strict=True)]


def test_an_idle_session_has_no_slot(split):
    pair = split()
    tap = Tap(pair, pair.client)
    pair.advance(30.0)
    assert not tap.of() and pair.client.shaper.writer.slots == 0


def test_an_activity_is_records_of_one_size_at_one_pace(split):
    pair = split()
    tap = Tap(pair, pair.client)
    user, other = pair.open()
    user.stream.send(b"q" * 3000)
    pair.advance(0.2)
    other.stream.send(b"a" * 300_000)
    pair.advance(3.0)
    assert len(other.received) == 3000 and len(user.received) == 300_000
    cells = tap.of()
    assert {size for _, _, size, _ in cells} == {upstream_clock(SEED, stops=False, bulk_after=1.0).cell}
    assert off_pace(cells) == [] and len(cells) > 60
    assert pair.client.shaper.state is ShaperState.IDLE
    assert not pair.client.shaper.writer.escapes
    span = [record for record in tap.others() if cells[0][0] <= record[0] <= cells[-1][0]]
    assert not [record for record in span if record[3][0].type is not PacketType.KEEPALIVE]
    assert all(records[3][-1].payload == bytes(len(records[3][-1].payload)) for records in cells)


def test_data_never_waits_for_more_than_the_next_slot(split):
    pair = split()
    user, other = pair.open()
    pair.advance(0.1)
    for _ in range(20):
        before = len(other.received)
        sent_at = pair.now
        user.stream.send(b"x" * 100)
        while len(other.received) == before:
            pair.advance(0.001)
        assert pair.now - sent_at <= TICK + 0.001


def test_the_hello_behind_the_first_packet_of_a_stream_leaves_with_the_next_step_of_the_timers(split):
    for start in (0.0, 0.0001, 0.0017, 0.0049):
        pair = split()
        pair.advance(start)
        user = pair.ask()
        pair.settle()
        other = pair.exit_users[user.stream.stream_id]
        opened_at = pair.now
        pair.advance(0.001)
        user.stream.send(b"hello" * 100)
        while not other.received:
            pair.advance(0.0005)
        assert pair.now - opened_at <= 2 * GRANULARITY + 0.001


def test_the_clock_stops_some_time_after_the_last_data(split):
    pair = split()
    tap = Tap(pair, pair.client)
    pair.open()
    pair.advance(5.0)
    times = [record[0] for record in tap.of()]
    assert HOLD <= times[-1] - times[0] < 1.0


def test_strong_stops_only_at_its_own_times(strong):
    pair = strong()
    clock = upstream_clock(SEED, stops=True, bulk_after=5.0)
    stops = [clock.first_stop * clock.stop_growth**k for k in range(18)]
    for wait in (0.05, 0.7, 1.3):
        tap = Tap(pair, pair.client)
        user, other = pair.open()
        for _ in range(3):
            pair.advance(wait)
            other.stream.send(b"a" * 5000)
        pair.advance(20.0)
        for length in lengths(tap.of()):
            assert min(abs(length - stop) for stop in stops) < 2 * TICK
        assert len(user.received) == 15000
    assert sum(pair.client.shaper.clock.stopped_at) == pair.client.shaper.clock.activities >= 3


def test_both_clocks_run_together_and_end_together(strong):
    pair = strong()
    up, down = Tap(pair, pair.client), Tap(pair, pair.exit)
    user, other = pair.open()
    other.stream.send(b"a" * 200_000)
    pair.advance(30.0)
    assert len(user.received) == 200_000
    assert abs(up.of()[0][0] - down.of()[0][0]) < 0.1
    assert 0 <= down.of()[-1][0] - up.of()[-1][0] < 0.4
    sizes = [size for _, _, size, _ in down.of()]
    assert len(set(sizes)) == 1, "a stream was opened, so no trickle"
    assert pair.exit.shaper.state is ShaperState.IDLE and pair.client.shaper.state is ShaperState.IDLE


def test_the_pace_behind_a_start_is_the_ramp_whatever_there_is_to_send(strong):
    seen = []
    for size in (100, 150_000):
        pair = strong()
        tap = Tap(pair, pair.exit)
        user, other = pair.open()
        other.stream.send(bytes(size))
        pair.advance(1.3)
        times = [record[0] for record in tap.of()]
        seen.append([round(at - times[0], 3) for at in times if at - times[0] < 0.65])
        pair.advance(20.0)
        assert len(user.received) == size
    assert seen[0] == seen[1]
    first, later = [at for at in seen[0] if at < 0.24], [at for at in seen[0] if 0.26 < at < 0.49]
    assert 10 <= len(first) <= 14, "one every 20 ms"
    assert len(set(later)) == len(later) > 40, "one every 5 ms"


def test_a_poll_on_an_open_stream_is_a_trickle(strong):
    pair = strong()
    user, other = pair.open()
    pair.advance(20.0)
    tap = Tap(pair, pair.exit)
    user.stream.send(b"any news?")
    pair.advance(0.05)
    other.stream.send(b"no" * 1000)
    pair.advance(10.0)
    assert len(user.received) == 2000
    clock = downstream_clock(SEED, bulk_after=5.0)
    assert {size for _, _, size, _ in tap.of()} == {clock.trickle}
    other.stream.send(b"y" * 60_000)
    pair.advance(10.0)
    assert clock.cell in {size for _, _, size, _ in tap.of()}
    assert len(user.received) == 62_000


def test_keepalives_ride_in_slots_while_there_are_some(split):
    pair = split()
    tap = Tap(pair, pair.client)
    user, _ = pair.open()
    for _ in range(400):
        user.stream.send(b"x")
        pair.advance(0.05)
    alone = [record for record in tap.others() if record[1] == 0]
    up = pair.end(pair.client, Direction.UPSTREAM)
    riding = [
        record for record in tap.of() if any(packet.type is PacketType.KEEPALIVE for packet in record[3])
    ]
    assert riding
    assert up.state.ping_sent == 0.0 or pair.now - up.state.ping_sent < 1.0
    assert len({size for _, _, size, _ in tap.of()}) == 1
    assert alone == [] or all(record[3][0].type is PacketType.KEEPALIVE for record in alone)


def test_a_long_upload_is_bulk_and_declared(split):
    pair = split()
    user, other = pair.open()
    total = 0
    while total < 3_000_000:
        room = user.stream.room
        if room:
            user.stream.send(bytes(min(room, 60_000)))
            total += min(room, 60_000)
        pair.advance(0.01)
    assert pair.client.shaper.state is ShaperState.BULK
    assert pair.client.shaper.writer.escapes["bulk"] == 1
    pair.advance(5.0)
    assert len(other.received) == total
    assert pair.client.shaper.state is ShaperState.IDLE


def test_an_upload_of_which_more_waits_than_fits_is_bulk_at_once(split):
    pair = split()
    clock = upstream_clock(SEED, stops=False, bulk_after=1.0)
    user, other = pair.open()
    user.stream.send(bytes(int(clock.rate * 0.9)))
    pair.advance(0.1)
    assert pair.client.shaper.state is ShaperState.CLOCK, "all of it fits"
    pair.advance(2.0)
    user.stream.send(bytes(int(clock.rate * 1.2)))
    pair.advance(0.1)
    assert pair.client.shaper.state is ShaperState.BULK
    assert pair.client.shaper.writer.escapes == {"bulk": 1}
    pair.advance(1.0)
    assert len(other.received) == int(clock.rate * 0.9) + int(clock.rate * 1.2)


def test_the_upstream_of_a_long_download_keeps_its_pace_and_no_receipt_is_late_for_it(split):
    pair = split()
    tap = Tap(pair, pair.client)
    user, other = pair.open()
    down = pair.end(pair.exit, Direction.DOWNSTREAM).state
    sent, unreported = 0, 0
    for _ in range(800):
        piece = min(other.stream.room, 60_000)
        if piece:
            other.stream.send(bytes(piece))
            sent += piece
        pair.advance(0.01)
        unreported = max(unreported, down.under_way.bytes)
    pair.advance(0.1)
    assert len(user.received) == sent > 20_000_000
    assert off_pace(tap.of()) == []
    assert unreported < 4 * 60_000


def test_a_packet_that_was_made_without_the_clock_is_sent_again_on_it(split):
    pair = split(upstream=2)
    user, other = pair.open()
    shaper = pair.client.shaper
    shaper.state = ShaperState.BULK  # as in the middle of an upload
    leg = pair.end(pair.client, Direction.UPSTREAM)
    leg.writable = leg.peer.writable = True
    user.stream.send(bytes(65_000))
    pair.client.pump(pair.now)
    shaper.state = ShaperState.IDLE
    carrier = next(one for one in pair.ends(pair.client, Direction.UPSTREAM) if one.road)
    pair.kill(carrier)
    pair.advance(3.0)
    assert len(other.received) == 65_000
    assert shaper.writer.escapes["oversize"] == 1


def test_long_datagrams_are_split_where_they_can_be(split):
    pair = split()
    user, other = pair.open(StreamKind.UDP)
    header = bytes.fromhex("0104400000350258c6336407")  # segments of 600 bytes
    user.stream.send(header, bytes(600 * 5))
    single = bytes.fromhex("0104400000350000c6336407")
    user.stream.send(single, bytes(1472))
    pair.advance(1.0)
    runs = [event for event in other.events if event.startswith("run")]
    assert len(runs) == 4
    assert pair.client.shaper.writer.escapes == {"oversize": 1}


def test_a_slot_whose_leg_cannot_be_written_is_skipped(split):
    pair = split()
    tap = Tap(pair, pair.client)
    user, _ = pair.open()
    leg = pair.end(pair.client, Direction.UPSTREAM)
    leg.capacity = 0
    leg.writable = False
    before = len(tap.of())
    user.stream.send(b"data")
    pair.advance(0.2)
    assert len(tap.of()) == before
    assert pair.client.shaper.slots_skipped >= 10
    leg.capacity = 4
    leg.writable = True
    pair.advance(0.1)
    assert 19 <= len(tap.of()) - before <= 21, "skipped slots are not sent later"


def test_a_leg_has_no_pace_while_the_clock_limits_it_and_one_where_its_path_does(split):
    pair = split()
    user, _ = pair.open()
    leg = pair.end(pair.client, Direction.UPSTREAM)
    pair.advance(0.1)
    assert leg.state.under_way.is_clocked
    leg.capacity, leg.writable = 0, False
    pair.advance(0.05)
    leg.capacity, leg.writable = 4, True
    pair.advance(0.05)
    assert not leg.state.under_way.is_clocked, "the path was slower"
    for _ in range(20):
        user.stream.send(b"x")
        pair.advance(0.05)
    assert leg.state.under_way.is_clocked
    user.stream.send(bytes(200_000))
    pair.advance(0.05)
    assert pair.client.shaper.state is ShaperState.BULK and not leg.state.under_way.is_clocked


def test_a_lost_leg_loses_nothing(split):
    pair = split(upstream=2, downstream=2)
    user, other = pair.open()
    for index in range(50):
        user.stream.send(bytes([index]) * 700)
        pair.advance(0.01)
        if index == 20:
            pair.kill(pair.end(pair.client, Direction.UPSTREAM))
        if index == 30:
            pair.add_leg(Direction.UPSTREAM)
    pair.advance(3.0)
    assert other.received == b"".join(bytes([index]) * 700 for index in range(50))


def test_a_budget_holds_ends_at_a_stop_and_says_so(split):
    budget = 2_000_000
    pair = split(budget=budget, limits=SessionLimits(keepalive=600.0))  # a day has few pings
    shaper = pair.client.shaper
    for _ in range(120):
        user, _ = pair.open()
        user.stream.send(b"q" * 500)
        pair.advance(2.0)
    assert shaper.writer.padding_bytes <= budget * 1.01
    assert shaper.writer.padding_bytes >= budget * 0.5
    assert shaper.state is ShaperState.STEPPED_DOWN and shaper.escape == "budget"
    assert shaper.writer.escapes["budget"] == 1 and len(pair.notices) == 1
    assert pair.client_counters.counted["shaping-stepped-down-budget"] == 1
    user, other = pair.open()
    user.stream.send(b"still works")
    pair.advance(0.1)
    assert bytes(other.received) == b"still works"
    pair.advance(86_400.0)
    assert shaper.state is ShaperState.IDLE and len(pair.notices) == 2


def test_an_hour_has_no_more_padding_than_its_part(split):
    pair = split(overhead=10)
    shaper = pair.client.shaper
    for _ in range(300):
        user, _ = pair.open()
        user.stream.send(b"q" * 5000)
        pair.advance(2.0)
    padding, other = shaper.budget.hour
    assert padding <= (other * 0.1 + 8 * 2**20) * 1.01
    assert shaper.state is ShaperState.STEPPED_DOWN and shaper.escape == "overhead"


def test_without_shaping_at_the_other_end_everything_arrives(split, pair):
    plain, shaped = pair, split()
    for one in (plain, shaped):
        user, other = one.open()
        user.stream.send(b"q" * 100)
        other.stream.send(b"a" * 100_000)
        one.advance(2.0)
        assert len(user.received) == 100_000 and bytes(other.received) == b"q" * 100


def test_a_long_download_becomes_bulk_though_it_waits_for_credit_now_and_then(strong):
    pair = strong()
    user, other = pair.open()
    sent = 0
    began = pair.now
    while pair.exit.shaper.state is not ShaperState.BULK and pair.now - began < 20:
        room = min(other.stream.room, 60_000)
        if room and int(pair.now * 100) % 8:  # the target pauses for a moment
            other.stream.send(bytes(room))
            sent += room
        pair.advance(0.01)
    assert 5.0 <= pair.now - began <= 8.0
    assert pair.exit.shaper.writer.escapes["bulk"] == 1
    pair.advance(5.0)
    assert len(user.received) == sent
    assert pair.exit.shaper.state is not ShaperState.BULK


@pytest.mark.parametrize("legs", [1, 3])
def test_what_leaves_is_the_same_whatever_it_carries(make_pair, legs):
    """Two sessions whose users differ: times, legs and sizes of the records do not."""
    seen = []
    for size in (10, 30_000):
        shaping, _ = plan(upstream_clock(SEED, stops=True, bulk_after=5.0))
        lots = random.Random(5)
        policy = BatchedWeightedRandom(lots.randbytes)
        pair = make_pair(upstream=legs, client_shaping=shaping, client_policy=policy)
        pair.advance(2.0)
        tap = Tap(pair, pair.client)
        user, other = pair.open()
        user.stream.send(bytes(size))
        pair.advance(0.4)
        other.stream.send(bytes(size * 3))
        pair.advance(0.05)
        seen.append([record[:3] for record in tap.of()])
        pair.advance(5.0)
        assert len(other.received) == size and len(user.received) == 3 * size
    assert len(seen[0]) > 40 and seen[0] == seen[1]
    assert (len({leg for _, leg, _ in seen[0]}) > 1) == (legs > 1)


def test_the_clock_does_not_run_ahead_of_a_path_that_delivers_nothing(split):
    pair = split()
    user, _ = pair.open()
    leg = pair.end(pair.client, Direction.UPSTREAM)
    leg.capacity = 10_000
    pair.swallow(leg)
    before = pair.client.shaper.writer.slots
    for _ in range(200):
        user.stream.send(b"x")
        pair.wheel.run(pair.now)
        pair.client.pump(pair.now)
        pair.now += TICK
    rate = upstream_clock(SEED, stops=False, bulk_after=1.0).highest_rate
    ahead = (pair.client.shaper.writer.slots - before) * 1456
    assert ahead <= rate * (IN_FLIGHT_TIME + pair.client.round_trip) + 2 * 1456


def test_a_peer_that_asks_without_end_is_answered_within_a_bound(split):
    pair = split()
    pair.ask()
    pair.client.pump(pair.now)
    leg = pair.end(pair.client, Direction.UPSTREAM)
    ping = pair.packet(
        PacketType.KEEPALIVE, 0, payload=Keepalive(KeepaliveKind.PING, 7, 0, 0, 0.0).encode(b"")
    )
    assert pair.client.shaper.state is ShaperState.CLOCK
    leg.peer.state.records_sent += 1
    pair.client.train_received(leg.state, memoryview(ping * 500), pair.now)
    waiting = pair.client.shaper.writer.keepalives[leg.state][1]
    assert len(waiting) == MAX_HELD
    assert pair.client_counters.dropped["keepalive-queue-full"] == 500 - MAX_HELD
    pair.advance(5.0)
    assert not pair.client.shaper.writer.keepalives


def test_a_keepalive_whose_leg_gets_no_slot_leaves_without_one(split):
    pair = split()
    pair.open()
    leg = pair.end(pair.client, Direction.UPSTREAM)
    leg.capacity = 0
    leg.writable = False
    pair.client.leg_set.doubt_all(pair.now)
    for _ in range(80):
        pair.ask()  # keeps the clock running
        pair.client.pump(pair.now)
        pair.now += TICK
        pair.wheel.run(pair.now)
    assert pair.client.shaper.writer.escapes["keepalive"] >= 1
