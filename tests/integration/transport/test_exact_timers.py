"""Timers of the kernel, and a driver that hides behind a random delay whether its loop was busy."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from halftunnel_vpn.timers import GRANULARITY
from halftunnel_vpn.transport.driver import BLUR, Driver
from halftunnel_vpn.transport.kernel.timer_fd import TimerFd


def next_step(now: float, steps: int = 2) -> float:
    """A deadline on the wheel."""
    return (int(now / 0.005) + steps) * 0.005


async def test_a_timer_of_the_kernel_wakes_the_loop():
    timer = TimerFd()
    loop = asyncio.get_running_loop()
    expired = asyncio.Event()
    loop.add_reader(timer.fd, expired.set)
    deadline = time.monotonic() + 0.02
    timer.set(deadline)
    await asyncio.wait_for(expired.wait(), 30)
    assert time.monotonic() >= deadline
    timer.clear()
    expired.clear()
    timer.set(0.0)
    await asyncio.wait_for(expired.wait(), 30), "a time that is past expires at once"
    loop.remove_reader(timer.fd)
    timer.close()
    with pytest.raises(OSError, match="timerfd_settime"):
        timer.set(1.0)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_timers_run_in_order_and_never_early_whenever_blurring_begins(when):
    driver = Driver(asyncio.get_running_loop())
    ran: list[tuple[int, float]] = []
    done = asyncio.Event()
    if when == "before":
        driver.blur()
    begun = time.monotonic()
    deadlines = {number: next_step(begun, 2 + number) for number in range(5)}

    def note(number: int, now: float) -> None:
        ran.append((number, now))
        if len(ran) == len(deadlines):
            done.set()

    for number in (3, 0, 4, 2, 1):
        driver.wheel.timer(lambda now, number=number: note(number, now)).arm(deadlines[number] - 0.001)
    if when == "after":
        driver.blur()
        driver.blur()
    await asyncio.wait_for(done.wait(), 30)
    assert [number for number, _ in ran] == [0, 1, 2, 3, 4]
    assert all(now >= deadlines[number] for number, now in ran)
    descriptors = len(os.listdir("/proc/self/fd"))
    driver.close()
    assert len(os.listdir("/proc/self/fd")) == descriptors - 1
    driver.blur()
    driver.wheel.timer(lambda now: None).arm(time.monotonic())
    driver.close()
    assert len(os.listdir("/proc/self/fd")) == descriptors - 1


async def test_how_late_a_timer_is_does_not_tell_whether_the_loop_was_busy():
    """Both are spread over BLUR; without that, a busy loop is a tenth of a millisecond sooner each time."""
    late: dict[bool, list[float]] = {False: [], True: []}
    driver = Driver(asyncio.get_running_loop())
    driver.blur()
    step = int(time.monotonic() / GRANULARITY) + 4
    done = asyncio.Event()

    def tick(now: float) -> None:
        nonlocal step
        late[bool(step & 2)].append(time.monotonic() - step * GRANULARITY)
        step = max(step, int(now / GRANULARITY)) + 2
        timer.arm((step - 0.5) * GRANULARITY)
        if sum(map(len, late.values())) >= 200:
            done.set()

    async def work() -> None:
        for _ in range(100_000):  # more in every other tick
            await asyncio.sleep(0.0005 if step & 2 else 0.004)

    timer = driver.wheel.timer(tick)
    timer.arm((step - 0.5) * GRANULARITY)
    worker = asyncio.ensure_future(work())
    await asyncio.wait_for(done.wait(), 60)
    worker.cancel()
    driver.close()
    for values in late.values():
        ordered = sorted(values)
        assert ordered[len(ordered) // 10] < BLUR / 2 < ordered[-len(ordered) // 10], "spread, not one value"
