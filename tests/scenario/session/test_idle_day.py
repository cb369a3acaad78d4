"""A day of an idle ssh-like session under a virtual clock: keepalives, cut legs, rotations, keystrokes."""

from __future__ import annotations

import gc

import pytest

from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.session.limits import SessionLimits

DAY = 24 * 3600.0
KEYSTROKE = 240.0
"""Seconds between two keystrokes, more or less."""

CUT_AFTER = 3000.0
"""Seconds of age at which something on the road cuts a leg."""

SWALLOWED_EVERY = 4 * 3600.0
"""Seconds between two roads that swallow everything without a word."""

ROTATED_EVERY = 2 * 3600.0
"""Seconds after which the client replaces its legs."""

GROWTH = 1000
"""Objects by which memory may differ after a day of some ten thousand keepalives."""


class Road:
    """Whatever stands between client and exit: opens legs again, cuts them, goes deaf."""

    def __init__(self, pair):
        self.pair = pair
        self.cuts = self.swallowed = self.rotated = self.gone = 0
        self.next_deaf, self.next_rotation = pair.now + SWALLOWED_EVERY, pair.now + ROTATED_EVERY
        self.reopen()

    def near(self, direction):
        return self.pair.ends(self.pair.client, direction)

    def reopen(self):
        for direction in Direction:
            if not self.near(direction):
                for end in self.pair.add_leg(direction):
                    end.on_close = self.hang_up

    def hang_up(self, leg):
        self.gone += 1
        self.pair.hang_up(leg)

    def look(self):
        pair = self.pair
        for leg in [leg for leg in pair.legs if leg.owner is pair.client]:
            if leg.alive and pair.now - leg.state.opened_at > CUT_AFTER and leg in pair.legs:
                self.cuts += 1
                pair.kill(leg)
        if pair.now >= self.next_deaf:
            self.next_deaf += SWALLOWED_EVERY
            self.swallowed += 1
            pair.swallow(pair.random.choice(pair.legs))
        if pair.now >= self.next_rotation:
            self.next_rotation += ROTATED_EVERY
            self.rotated += 1
            for direction in Direction:
                old = self.near(direction)
                for end in pair.add_leg(direction):
                    end.on_close = self.hang_up
                for leg in old:
                    pair.client.leg_set.retire(leg.state, pair.now)
        self.reopen()


@pytest.mark.timeout(300)
def test_nothing_is_lost_in_a_day(make_pair):
    pair = make_pair(0, 0, limits=SessionLimits(keepalive=30.0))
    road = Road(pair)
    pair.settle()
    client, exit = pair.open()
    began, typed, answered = pair.now, bytearray(), bytearray()
    sizes = []
    while pair.now - began < DAY:
        pause = KEYSTROKE * (0.5 + pair.random.random())
        for _ in range(4):
            pair.advance(pause / 4)
            road.look()
        key, screen = pair.random.randbytes(1), pair.random.randbytes(pair.random.randrange(1, 300))
        client.stream.send(key)
        exit.stream.send(screen)
        typed += key
        answered += screen
        if len(typed) % 90 == 0:
            gc.collect()
            sizes.append(len(gc.get_objects()))
    pair.advance(60.0)
    road.look()
    pair.advance(60.0)
    assert bytes(exit.received) == typed and len(typed) > 300
    assert bytes(client.received) == answered
    assert client.events == ["opened"] and not exit.events, "the session was never evicted"
    assert len(pair.client.streams) == len(pair.exit.streams) == 1
    assert road.cuts > 40 and road.swallowed >= 5 and road.rotated >= 11
    assert not pair.client_counters.dropped and not pair.exit_counters.dropped
    assert len(pair.client.legs) <= 4 and len(pair.exit.legs) <= 4
    assert len(sizes) >= 3 and sizes[-1] - sizes[0] < GROWTH, sizes
