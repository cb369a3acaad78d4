"""Roads on which a single record takes many seconds: slow is not dead, and what is under way is not lost."""

from __future__ import annotations

from collections import deque

import pytest

from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.session.keepalive import LEG_SILENT
from halftunnel_vpn.session.legs import Movement
from halftunnel_vpn.session.liveness import LAST_PATIENCE

UP, DOWN = Direction.UPSTREAM, Direction.DOWNSTREAM
STEP = 0.01
FOUND_WITHIN = 2.0
KERNEL = 32 * 1024
"""Bytes that wait in front of the road before a leg is not writable."""


class SlowRoad:
    """One end of a leg whose road carries ``rate`` bytes a second that way, and takes ``delay`` seconds.

    ``has_edge``: a proxy stands in front of the slow part and takes all at once.
    """

    def __init__(self, pair, end, rate, delay, has_edge):
        self._pair, self._end = pair, end
        self._rate, self._delay, self._has_edge = rate, delay, has_edge
        self._free_at = pair.now
        self._flying = deque()
        self.given = 0
        self.is_dead = False
        end.send_train, end.movement = self.send_train, self.movement
        while end.road:
            self.send_train([end.road.popleft()])

    @property
    def backlog(self):
        return max(self._free_at - self._pair.now, 0.0) * self._rate

    @property
    def taken(self):
        return self.given if self._has_edge else int(self.given - self.backlog)

    @property
    def arrived(self):
        return int(self.given - self.backlog)

    def send_train(self, parts):
        train = b"".join(parts)
        self._free_at = max(self._free_at, self._pair.now) + len(train) / self._rate
        self.given += len(train)
        self._flying.append((self._free_at + self._delay, train))
        return len(train)

    def set_pace(self, pace):
        pass

    def movement(self):
        if self.is_dead:
            return Movement(self.given, 0, 0)
        return Movement(self.given, self.taken, self._end.peer.slow_road.arrived)

    def deliver(self):
        end = self._end
        end.writable = self._has_edge or self.backlog < KERNEL
        while self._flying and self._flying[0][0] <= self._pair.now and not self.is_dead:
            train = self._flying.popleft()[1]
            end.peer.owner.train_received(end.peer.state, memoryview(train), self._pair.now)


@pytest.fixture
def slow(make_pair):
    """Makes a pair with one leg in each direction, of which the data of one has so many bits a second."""

    def make(direction, kbit, has_edge=False):
        pair = make_pair(0, 0)
        for way in Direction:
            for end in pair.add_leg(way):
                is_slow = way is direction and end.owner.is_client == (way is UP)
                rate = kbit * 125 if is_slow else 1e9
                end.slow_road = SlowRoad(pair, end, rate, 0.03, has_edge)
        return pair

    return make


def run(pair, seconds, act=lambda: None):
    """Let time pass in small steps; ``act`` at each of them."""
    end = pair.now + seconds
    while pair.now < end:
        act()
        pair.client.pump(pair.now)
        pair.exit.pump(pair.now)
        pair.now += STEP
        for leg in pair.legs:
            leg.slow_road.deliver()
        pair.wheel.run(pair.now)


def open_stream(pair):
    user = pair.ask()
    run(pair, 1.0)
    return user, pair.exit_users[user.stream.stream_id]


def feed(user):
    while user.stream.room >= KERNEL:
        user.stream.send(bytes(KERNEL))


@pytest.mark.parametrize(
    ("direction", "has_edge"),
    [(UP, False), (DOWN, False), (DOWN, True)],
    ids=["up", "down", "down from an edge"],
)
@pytest.mark.parametrize("kbit", [64, 128, 256])
def test_bulk_goes_on_and_no_leg_is_blamed(slow, direction, kbit, has_edge):
    pair = slow(direction, kbit, has_edge)
    sender, receiver = open_stream(pair)
    if direction is DOWN:
        sender, receiver = receiver, sender
    run(pair, 40.0, lambda: feed(sender))
    assert [leg.close_reason for leg in pair.legs] == [None] * 4
    assert len(receiver.received) > 0.7 * 40 * kbit * 125


@pytest.mark.parametrize("has_edge", [False, True], ids=["swallowed", "an edge that takes everything"])
def test_a_dead_leg_in_use_is_found_as_soon_as_ever(slow, has_edge):
    pair = slow(UP, 10_000, has_edge)
    client, _ = open_stream(pair)
    leg = pair.end(pair.client, UP)
    run(pair, 2.0, lambda: client.stream.send(b"x"))
    for end in (leg, leg.peer):
        end.slow_road.is_dead = True
    if has_edge:
        leg.movement = lambda: Movement(leg.slow_road.given, leg.slow_road.given, 0)
    run(pair, FOUND_WITHIN + 0.3, lambda: client.stream.send(b"x"))
    assert leg.close_reason == LEG_SILENT


def last_leg_that_dies(slow):
    """A pair whose only leg down is dead while data are under way, and that leg at the exit."""
    pair = slow(DOWN, 10_000)
    _, exit = open_stream(pair)
    down = pair.end(pair.exit, DOWN)
    for end in (down, down.peer):
        end.slow_road.is_dead = True
    exit.stream.send(b"is lost")
    return pair, down


def test_the_last_leg_of_an_exit_waits_for_another_and_no_longer(slow):
    pair, down = last_leg_that_dies(slow)
    run(pair, 2 * FOUND_WITHIN)
    assert down.close_reason is None
    for end in pair.add_leg(DOWN):
        end.slow_road = SlowRoad(pair, end, 1e9, 0.03, False)
    run(pair, 0.2)
    assert down.close_reason == LEG_SILENT


def test_the_last_leg_of_an_exit_is_found_in_the_end(slow):
    pair, down = last_leg_that_dies(slow)
    run(pair, LAST_PATIENCE - 1.0)
    assert down.close_reason is None
    run(pair, 1.5)
    assert down.close_reason == LEG_SILENT
