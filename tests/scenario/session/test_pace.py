"""The pace of legs on paths with one narrow place: little queue, nearly all of the rate, whatever comes."""

from __future__ import annotations

import heapq
import random
from statistics import median

import pytest

from halftunnel_vpn.protocol.records import MAX_TRAIN
from halftunnel_vpn.session.pacing import (
    CONTESTED_FOR,
    MIN_PACE,
    MIN_TRAIN,
    PACED_BELOW,
    TARGET,
    TARGET_BYTES,
    Pacer,
    Phase,
)
from halftunnel_vpn.session.receipts import MIN_UNDER_WAY, InFlight

SEGMENT, HEADERS = 1448, 66
MBIT = 125_000
RECEIPT_AFTER = 0.02
UNSENT_TIME = 0.0024
JITTER = 0.001


class Leg:
    """One leg on a :class:`Line`, with as much to send as it may."""

    def __init__(self) -> None:
        self.in_flight = InFlight()
        self.record = self.arrived = self.reported = 0
        self.last_arrival = 0.0
        self.delivered = 0
        self.sending = False
        self.is_idle = False

    @property
    def pacer(self) -> Pacer:
        return self.in_flight.pacer


class Line:
    """Legs over one narrow place, by a virtual clock. The peer's clock is another one, and wraps soon.

    A leg without a pace of ours is as TCP with bbr: two and a half products are in flight.
    """

    def __init__(self, rate: float, round_trip: float, legs: int = 1, *, seed: int = 1) -> None:
        self.rate, self.round_trip = rate, round_trip
        self.legs = [Leg() for _ in range(legs)]
        self.now = 100.0
        self.foreign = 0.0
        """Seconds of queue that others keep in the narrow place, however much we send."""
        self.queues: list[float] = []
        self._random = random.Random(seed)
        self._free_at = self.now
        self._events: list[tuple[float, int, str, Leg, int]] = []
        self._count = 0
        for leg in self.legs:
            self._at(self.now, "send", leg)

    def run(self, seconds: float) -> float:
        """Bytes a second that arrived, of the records; ``queues`` are those of that time."""
        before = sum(leg.delivered for leg in self.legs)
        end = self.now + seconds
        self.queues.clear()
        while self._events and self._events[0][0] <= end:
            self.now, _, kind, leg, value = heapq.heappop(self._events)
            getattr(self, f"_{kind}")(leg, value)
        self.now = end
        return (sum(leg.delivered for leg in self.legs) - before) / seconds

    def idle(self, seconds: float) -> None:
        """Have nothing to send for ``seconds``."""
        for leg in self.legs:
            leg.is_idle = True
            leg.in_flight.idle()
        self.run(seconds)
        for leg in self.legs:
            leg.is_idle = False
            self._wake(leg, self.now)

    @property
    def queue(self) -> float:
        """Seconds that the next packet would wait."""
        return max(self._free_at - self.now, 0.0)

    def _at(self, time: float, kind: str, leg: Leg, value: int = 0) -> None:
        self._count += 1
        heapq.heappush(self._events, (time, self._count, kind, leg, value))

    def _send(self, leg: Leg, _: int) -> None:
        pacer = leg.pacer
        leg.sending = False
        if leg.is_idle:
            return
        if (
            not pacer.pace
            and leg.in_flight.bytes > 2.5 * self.rate * self.round_trip / len(self.legs) + 20_000
        ):
            return  # a receipt wakes it
        if leg.in_flight.is_full:
            return
        size = pacer.train if leg.record else 2048  # first somebody opens a stream
        leg.record += 1
        leg.in_flight.sent(leg.record, size, 0, self.now)
        departs = pacer.departure(0, self.now)  # the last byte's
        chunks = max(-(-size // SEGMENT), 1)
        for chunk in range(1, chunks + 1):
            length = SEGMENT if chunk < chunks else size - SEGMENT * (chunks - 1)
            time = departs - (size - min(chunk * SEGMENT, size)) / pacer.pace if pacer.pace else self.now
            self._at(max(time, self.now), "pass", leg, length if chunk < chunks else -length)
        self._wake(leg, departs - UNSENT_TIME if pacer.pace else self.now)

    def _wake(self, leg: Leg, time: float) -> None:
        if not leg.sending:
            leg.sending = True
            self._at(max(time, self.now), "send", leg)

    def _pass(self, leg: Leg, length: int) -> None:
        self.queues.append(self.queue)
        self._free_at = max(self._free_at, self.now) + (abs(length) + HEADERS) / self.rate
        if length < 0:
            wait = self.foreign + self._random.random() * JITTER
            self._at(self._free_at + self.round_trip / 2 + wait, "arrive", leg)

    def _arrive(self, leg: Leg, _: int) -> None:
        leg.arrived += 1
        leg.last_arrival = self.now
        if leg.arrived - leg.reported == 1:
            self._at(self.now + RECEIPT_AFTER, "tell", leg)

    def _tell(self, leg: Leg, _: int) -> None:
        leg.reported = leg.arrived
        stamp = int((leg.last_arrival + 4190.0) * 1e6) & 0xFFFF_FFFF or 1
        self._at(self.now + self.round_trip / 2, "receipt", leg, leg.arrived << 32 | stamp)

    def _receipt(self, leg: Leg, value: int) -> None:
        in_flight = leg.in_flight
        in_flight.pacer.legs = len(self.legs)
        before = in_flight.bytes
        in_flight.arrived(value >> 32, self.now, value & 0xFFFF_FFFF)
        leg.delivered += before - in_flight.bytes
        if leg.pacer.wants_drain:
            leg.pacer.wants_drain = False
            for other in self.legs:
                if other is not leg:
                    other.pacer.drain(self.now)
        self._wake(leg, self.now)


def goal(rate: float) -> float:
    """Seconds of queue that are well enough."""
    return 2.0 * max(TARGET, TARGET_BYTES / rate) + 2 * SEGMENT / rate


@pytest.mark.parametrize("legs", [1, 4])
@pytest.mark.parametrize("round_trip", [0.02, 0.06])
@pytest.mark.parametrize("mbit", [2, 10, 40])
def test_a_slow_path_is_full_and_its_queue_is_short(mbit, round_trip, legs):
    line = Line(mbit * MBIT, round_trip, legs)
    line.run(6.0)
    assert line.run(8.0) > 0.93 * line.rate * SEGMENT / (SEGMENT + HEADERS)
    assert median(line.queues) < goal(line.rate)
    assert all(leg.pacer.phase in (Phase.STEADY, Phase.DRAIN) for leg in line.legs)


def test_trains_are_short_where_a_long_one_would_hold_up_what_is_urgent():
    line = Line(2 * MBIT, 0.02)
    line.run(6.0)
    assert line.legs[0].pacer.train / line.rate < 0.01


def test_a_path_that_becomes_slower_is_followed():
    line = Line(40 * MBIT, 0.02)
    line.run(5.0)
    line.rate /= 4
    line.run(3.0)
    assert line.run(5.0) > 0.9 * line.rate
    assert median(line.queues) < goal(line.rate)


def test_a_path_that_becomes_faster_is_followed():
    line = Line(10 * MBIT, 0.02)
    line.run(5.0)
    line.rate *= 4
    line.run(6.0)
    assert line.run(3.0) > 0.9 * line.rate


@pytest.mark.parametrize("slow", [0.5, 2, 10])
@pytest.mark.parametrize("round_trip", [0.02, 0.06])
def test_a_pace_that_has_become_too_low_while_idle_is_left_in_a_few_round_trips(slow, round_trip):
    line = Line(slow * MBIT, round_trip)
    line.run(8.0)
    assert 0 < line.legs[0].pacer.pace < 1.5 * slow * MBIT
    line.idle(60.0)
    line.rate = 40 * MBIT
    line.run(1.5 + 10 * round_trip)
    assert line.run(1.0) > 0.8 * line.rate


def test_a_pace_that_is_still_right_after_a_long_pause_makes_no_long_queue():
    line = Line(40 * MBIT, 0.02)
    line.run(5.0)
    line.idle(60.0)
    assert line.run(2.0) > 0.9 * line.rate
    assert max(line.queues) < 0.05
    assert median(line.queues) < goal(line.rate)


def test_a_fast_path_has_no_pace_from_its_start_on():
    """While TCP doubles its rate each round trip, what waits at the sender looks like a queue."""
    line = Line(1.5 * MBIT, 0.05)
    while line.rate < 200 * MBIT:
        line.run(0.05)
        assert not line.legs[0].pacer.pace, f"at {line.rate / MBIT:.0f} Mbit/s"
        line.rate *= 2
    for _ in range(100):
        line.run(0.1)
        assert not line.legs[0].pacer.pace
    assert line.legs[0].pacer.train == MAX_TRAIN and not line.legs[0].pacer.in_flight


def test_a_path_that_loses_has_no_pace_until_it_has_lost_nothing_for_a_while():
    line = Line(10 * MBIT, 0.02)
    line.run(5.0)
    leg = line.legs[0]
    assert leg.pacer.pace and leg.in_flight.limit < MIN_UNDER_WAY
    leg.in_flight.give_up_pace(line.now + 20.0)
    assert not leg.pacer.pace and leg.pacer.phase is Phase.LOSSY
    assert leg.in_flight.limit >= MIN_UNDER_WAY
    for _ in range(19):
        line.run(1.0)
        assert not leg.pacer.pace and leg.pacer.train == MAX_TRAIN
    line.run(8.0)
    assert leg.pacer.pace
    line.run(4.0)
    assert median(line.queues) < goal(line.rate)


def test_a_path_that_others_fill_is_left_to_tcp_and_tried_again():
    line = Line(40 * MBIT, 0.02)
    line.run(5.0)
    line.foreign = 0.1
    line.run(3.0)
    assert line.legs[0].pacer.phase is Phase.CONTESTED and not line.legs[0].pacer.pace
    line.foreign = 0.0
    line.run(CONTESTED_FOR + 6.0)
    assert line.legs[0].pacer.pace
    assert line.run(4.0) > 0.9 * line.rate
    assert median(line.queues) < goal(line.rate)


def test_a_fast_path_has_no_pace_and_whole_trains():
    line = Line(2 * PACED_BELOW, 0.002)
    line.run(2.0)
    assert not line.legs[0].pacer.pace
    assert line.legs[0].pacer.train == Pacer().train


def test_a_queue_of_our_own_does_not_become_the_least_time():
    """Without draining the least time would creep up, and with it the queue."""
    line = Line(10 * MBIT, 0.02)
    line.run(40.0)
    assert line.run(10.0) > 0.9 * line.rate
    assert median(line.queues) < goal(line.rate)


def test_a_peer_that_does_not_tell_when_records_arrive_leaves_the_pace_to_tcp():
    in_flight = InFlight()
    for number in range(1, 400):
        in_flight.sent(number, 10_000, 0, number / 100)
        assert not in_flight.arrived(number, number / 100 + 0.2)
    assert not in_flight.pacer.pace
    assert in_flight.pacer.phase is Phase.FREE


def test_times_without_sense_do_no_harm():
    pacer = Pacer()
    numbers = random.Random(3)
    delivered, now = 0, 50.0
    for _ in range(5000):
        now += numbers.random() * 0.05
        delivered += 5000
        pacer.departure(5000, now)
        pacer.measured(now - 0.02, numbers.getrandbits(32) or 1, 0.02, delivered, numbers.random() < 0.9, now)
        assert pacer.pace == 0 or pacer.pace >= MIN_PACE
        assert MIN_TRAIN <= pacer.train <= MAX_TRAIN and pacer.in_flight >= 0


def test_a_peer_whose_clock_runs_too_fast_does_not_stop_a_leg():
    """As a hostile one may say that hardly anything arrives, ever later."""
    pacer = Pacer()
    for number in range(1, 2000):
        now = number / 50
        pacer.departure(2048, now)
        pacer.measured(now, number * 2_000_000 % (1 << 32) or 1, 0.02, number * 100, True, now)
        assert pacer.pace == 0 or pacer.pace >= MIN_PACE
