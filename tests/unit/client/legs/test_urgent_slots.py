"""A slot for what is urgent is opened once, kept while losses are reported, and closed some time after."""

from __future__ import annotations

import pytest

from halftunnel_vpn.client.legs.slots import Slot
from halftunnel_vpn.client.legs.urgent_slots import AGAIN_AFTER, UrgentSlots
from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.session.urgent_leg import WANTED_FOR
from halftunnel_vpn.timers import Wheel

UP, DOWN = Direction.UPSTREAM, Direction.DOWNSTREAM
URL = "wss://a.example/"


class House:
    def __init__(self):
        self.wheel = Wheel()
        self.begun: list[tuple[Direction, int, Slot]] = []
        self.refuses = False
        self.slots = UrgentSlots(self.wheel, self._begin)

    def _begin(self, direction, number):
        if self.refuses:
            return None
        slot = Slot(direction, [URL], {}, lambda: 0.5, rotate_after=1, rotate_bytes=1, is_urgent=True)
        self.begun.append((direction, number, slot))
        return slot

    @property
    def is_closed(self):
        return [slot.is_closed for *_, slot in self.begun]


@pytest.fixture
def house():
    return House()


def test_one_for_each_direction_until_nothing_is_lost_for_a_while(house):
    house.slots.wanted(UP, 3, 100.0)
    house.slots.wanted(DOWN, 5, 120.0)
    house.slots.wanted(UP, 4, 150.0)
    assert [begun[:2] for begun in house.begun] == [(UP, 3), (DOWN, 5)]
    house.wheel.run(149.0 + WANTED_FOR)
    assert house.is_closed == [False, True]
    house.wheel.run(151.0 + WANTED_FOR)
    assert house.is_closed == [True, True]
    house.slots.wanted(UP, 6, 1000.0)
    assert house.begun[-1][:2] == (UP, 6), "another one, when it loses again"


def test_what_was_not_to_be_had_is_asked_for_again(house):
    house.refuses = True
    house.slots.wanted(UP, 3, 100.0)
    assert house.wheel.next_deadline is None
    house.refuses = False
    house.slots.wanted(UP, 3, 101.0)
    assert len(house.begun) == 1


def test_nothing_is_left_when_the_session_is_over(house):
    house.slots.wanted(UP, 3, 100.0)
    house.slots.close()
    assert house.wheel.next_deadline is None
    house.slots.wanted(DOWN, 3, 101.0)
    assert len(house.begun) == 1, "a report that comes while the keepers end"


def test_one_that_gave_way_comes_back_after_a_while(house):
    house.slots.wanted(UP, 3, 100.0)
    house.slots.wanted(DOWN, 3, 100.0)
    assert not house.slots.give_way(UP, 110.0, "wss://another/"), "it leads elsewhere"
    assert house.slots.give_way(UP, 110.0, URL)
    assert not house.slots.give_way(UP, 110.0)
    house.slots.wanted(UP, 3, 110.0)
    house.slots.wanted(UP, 3, 109.0 + AGAIN_AFTER)
    assert house.is_closed == [True, False]
    house.slots.wanted(UP, 3, 110.0 + AGAIN_AFTER)
    assert house.is_closed == [True, False, False]
    house.wheel.run(101.0 + WANTED_FOR)
    assert house.is_closed == [True, True, False]
