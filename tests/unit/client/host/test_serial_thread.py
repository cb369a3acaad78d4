"""Threads that change the host: one at a time, each to its end, and none after the watch has stopped."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from halftunnel_vpn.client.connection import Connection, ConnectionOwner
from halftunnel_vpn.client.exits.exit_set import ExitSet
from halftunnel_vpn.client.host.host_keeper import HostKeeper
from halftunnel_vpn.client.host.host_watch import HostWatch
from halftunnel_vpn.client.host.road_resolver import RoadResolver
from halftunnel_vpn.client.host.serial_thread import SerialThread
from halftunnel_vpn.client.legs.connector import Connector
from halftunnel_vpn.client.settings import dial_options
from halftunnel_vpn.config.client import parse_client
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.host import Host
from halftunnel_vpn.host.kernel.fake import FakeKernel
from halftunnel_vpn.transport.driver import Driver


class Work:
    """Something that blocks until it is let go."""

    def __init__(self) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()
        self.is_done = False

    def __call__(self) -> str:
        self.begun.set()
        self.may_end.wait()
        self.is_done = True
        return "done"


async def begun(turn: SerialThread, work: Work) -> asyncio.Task[str]:
    task = asyncio.create_task(turn(work))
    await asyncio.to_thread(work.begun.wait)
    return task


async def test_what_has_begun_is_done_to_its_end_and_what_waits_is_not_begun() -> None:
    turn, first, second = SerialThread(), Work(), Work()
    doing = await begun(turn, first)
    waiting = asyncio.create_task(turn(second))
    await asyncio.sleep(0)
    waiting.cancel()
    doing.cancel()
    await asyncio.wait((waiting,))
    assert not doing.done()
    first.may_end.set()
    await asyncio.wait((doing,))
    assert doing.cancelled() and waiting.cancelled()
    assert first.is_done and not second.begun.is_set()


async def test_however_often_it_is_cancelled_the_next_one_waits_for_the_end_of_the_thread() -> None:
    turn, first, second = SerialThread(), Work(), Work()
    second.may_end.set()
    doing = await begun(turn, first)
    next_one = asyncio.create_task(turn(second))
    for _ in range(3):
        doing.cancel()
        await asyncio.sleep(0.01)
    assert not doing.done() and not second.begun.is_set()
    first.may_end.set()
    assert await next_one == "done"
    assert doing.cancelled()


def test_a_loop_that_ends_waits_for_the_end_of_the_thread() -> None:
    work = Work()

    async def main() -> None:
        await begun(SerialThread(), work)
        asyncio.get_running_loop().call_later(0.05, work.may_end.set)

    asyncio.run(main())
    assert work.is_done


async def test_what_fails_when_nobody_is_left_is_told_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    turn, work = SerialThread(), Work()

    def failing() -> None:
        work()
        raise OSError("too late")

    doing = asyncio.create_task(turn(failing))
    await asyncio.to_thread(work.begun.wait)
    doing.cancel()
    work.may_end.set()
    await asyncio.wait((doing,))
    assert doing.cancelled() and not caplog.records


@pytest.fixture
def make_watch(profile_text: str, counters: Counters, tmp_path: Path) -> Callable[[SerialThread], HostWatch]:
    """A watch over a host whose device is not there."""

    def make(turn: SerialThread) -> HostWatch:
        profile = parse_client(profile_text)
        driver = Driver(asyncio.get_running_loop())
        resolver = RoadResolver(1, counters)
        connector = Connector(profile, lambda road: dial_options(profile, road, resolver), counters)
        connection = Connection(
            profile,
            ExitSet.single(connector),
            driver,
            counters,
            ConnectionOwner(session_made=lambda hello: None, session_lost=lambda now: None),
        )
        host = Host(tmp_path, kernel=FakeKernel(tmp_path / "kernel"))
        keeper = HostKeeper(host, counters, in_turn=turn)
        return HostWatch(profile, keeper, connection, resolver, driver, counters, lambda: False)

    return make


@pytest.mark.parametrize("turns", range(6))
async def test_once_the_watch_has_stopped_it_does_nothing_to_the_host(
    make_watch: Callable[[SerialThread], HostWatch], caplog: pytest.LogCaptureFixture, turns: int
) -> None:
    caplog.set_level(logging.INFO)
    turn, work = SerialThread(), Work()
    watch = make_watch(turn)
    holding = await begun(turn, work)
    running = asyncio.create_task(watch.run())
    watch.exit_changed(has_ipv6=False)  # the host is to follow as soon as it has its turn
    await asyncio.sleep(0.01)
    work.may_end.set()
    await holding
    for _ in range(turns):
        await asyncio.sleep(0)
    await watch.stop()
    caplog.clear()
    assert running.done()
    await turn(lambda: None)
    assert not caplog.records
