"""One callback that raises stops nothing but itself; a task that must not end is noticed when it does."""

from __future__ import annotations

import asyncio
import logging

import pytest

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import UnexpectedEnd
from halftunnel_vpn.transport import faults
from halftunnel_vpn.transport.driver import Driver
from halftunnel_vpn.transport.faults import FAULT, FaultHandler, contained, endless


@pytest.fixture
async def counters():
    made = Counters()
    FaultHandler(asyncio.get_running_loop(), made)
    return made


@pytest.fixture
async def driver(counters):
    made = Driver(asyncio.get_running_loop())
    yield made
    made.close()


def broken(*_):
    raise RuntimeError("broken")


async def test_a_timer_that_raises_stops_no_other_timer(driver, counters, caplog):
    beats = asyncio.Queue()

    def beat(now):
        timer.arm(now + 0.01)
        beats.put_nowait(now)

    timer = driver.wheel.timer(beat)
    now = driver.clock()
    timer.arm(now + 0.01)
    for _ in range(3):
        driver.wheel.timer(broken).arm(now + 0.01)  # in the same bucket, and alone in the wheel's alarm
    with caplog.at_level(logging.ERROR, "halftunnel_vpn"):
        async with asyncio.timeout(20):
            for _ in range(3):
                await beats.get()
    assert counters.dropped == {FAULT: 3}
    assert "RuntimeError: broken" in caplog.text


async def test_a_timer_that_raises_as_the_only_one_leaves_the_alarm_set_for_later_ones(driver, counters):
    fired = asyncio.Event()
    now = driver.clock()
    driver.wheel.timer(broken).arm(now)
    driver.wheel.timer(lambda now: fired.set()).arm(now + 0.05)
    async with asyncio.timeout(20):
        await fired.wait()
    assert counters.dropped == {FAULT: 1}


async def test_a_callback_that_raises_is_counted(counters):
    loop = asyncio.get_running_loop()
    loop.call_soon(broken)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert counters.dropped == {FAULT: 1}


async def test_tracebacks_are_bounded(counters, caplog, monkeypatch):
    monkeypatch.setattr(faults, "MAX_TRACEBACKS", 2)
    loop = asyncio.get_running_loop()
    with caplog.at_level(logging.ERROR, "halftunnel_vpn"):
        for _ in range(5):
            loop.call_exception_handler({"message": "what", "exception": RuntimeError("broken")})
    assert counters.dropped == {FAULT: 5} and len(caplog.records) == 2


async def test_contained_work_ends_nobody_else(counters):
    async def fail():
        raise ValueError("one question")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(contained(fail(), "a question"))
    assert counters.dropped == {FAULT: 1}


async def test_contained_work_can_be_cancelled(counters):
    task = asyncio.ensure_future(contained(asyncio.sleep(3600), "sleep"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not counters.dropped


async def test_an_endless_task_that_returns_ends_its_group():
    with pytest.raises(ExceptionGroup) as raised:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(endless(asyncio.sleep(0), "the watch"))
            await asyncio.sleep(3600)
    assert isinstance(raised.value.exceptions[0], UnexpectedEnd)
    assert str(raised.value.exceptions[0]).startswith("the watch has ended unexpectedly")
