"""When pumps run: soon after they were woken, or at the end of the callback that holds them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from halftunnel_vpn.transport.driver import Driver


@pytest.fixture
async def driver() -> AsyncIterator[Driver]:
    made = Driver(asyncio.get_running_loop())
    yield made
    made.close()


async def turn() -> None:
    """Return after the callbacks that are due now."""
    await asyncio.sleep(0)


async def test_held_pumps_run_once_when_they_are_released(driver):
    ran: list[str] = []
    first, second = (
        driver.pump(lambda now: ran.append("first")),
        driver.pump(lambda now: ran.append("second")),
    )
    driver.hold()
    for pump in (first, second, first):
        pump.wake()
    await turn()
    assert ran == []
    driver.release()
    assert ran == ["first", "second"]
    await turn()
    assert ran == ["first", "second"]
    first.wake()
    assert len(ran) == 2
    await turn()
    assert ran == ["first", "second", "first"]


async def test_what_a_pump_wakes_runs_in_the_next_turn(driver):
    ran: list[int] = []

    def work(now: float) -> None:
        ran.append(1)
        if len(ran) < 3:
            pump.wake()

    pump = driver.pump(work)
    driver.hold()
    pump.wake()
    driver.release()
    assert len(ran) == 1
    await turn()
    assert len(ran) == 2
    await turn()
    assert len(ran) == 3


async def test_a_pump_that_fails_stops_no_other(driver):
    failures: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context["message"]))
    ran: list[float] = []
    bad, good = driver.pump(lambda now: 1 / 0), driver.pump(ran.append)
    driver.hold()
    bad.wake()
    good.wake()
    driver.release()
    assert len(ran) == len(failures) == 1
    bad.wake()
    await turn()
    assert len(failures) == 2
