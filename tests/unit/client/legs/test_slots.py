"""A slot that waits is woken when its time has come, whenever that falls."""

from __future__ import annotations

import asyncio

import pytest

from halftunnel_vpn.client.legs.circuit_breaker import Breaker
from halftunnel_vpn.client.legs.slots import BYTES_POLL, Slot
from halftunnel_vpn.protocol.keys import Direction

URL = "wss://a.example/"
NOW = 1000.0


@pytest.fixture
def breaker():
    return Breaker(lambda: 0.5)


@pytest.fixture
def slot(breaker):
    return Slot(
        Direction.UPSTREAM, [URL], {URL: breaker}, lambda: 0.5, rotate_after=3600, rotate_bytes=1 << 40
    )


async def wakes_in_time(slot):
    async with asyncio.timeout(BYTES_POLL / 2):
        await slot.rest()


async def test_a_pause_that_ends_between_the_question_and_the_rest(slot):
    """What is due by then was not due when it was asked: nothing else would wake it."""
    slot.refused(NOW)
    due = slot._not_before
    assert slot.wanted(due - 1e-4) is None
    await wakes_in_time(slot)
    assert slot.wanted(due) == URL


async def test_a_circuit_that_may_close_between_the_question_and_the_rest(slot, breaker):
    breaker.tried()
    breaker.failed(NOW)
    assert slot.wanted(breaker.ready_at - 1e-4) is None
    await wakes_in_time(slot)
    assert slot.wanted(breaker.ready_at) == URL


async def test_whoever_stirs_it_wakes_it(slot):
    slot.refused(NOW)
    slot.refused(NOW)
    assert slot.wanted(NOW) is None
    asyncio.get_running_loop().call_later(0.01, slot.wake)
    await wakes_in_time(slot)
