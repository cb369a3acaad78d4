"""Threads that change the host: one at a time, each to its end, and none after the watch has stopped."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from halftunnel_vpn.client.connection import Connection
from halftunnel_vpn.client.connector import Connector
from halftunnel_vpn.client.host_watch import HostWatch
from halftunnel_vpn.client.road_resolver import RoadResolver
from halftunnel_vpn.client.serial_thread import HostTurn
from halftunnel_vpn.client.settings import dial_options, host_state
from halftunnel_vpn.config.client import parse_client
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.host import HostNetwork
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


async def begun(turn: HostTurn, work: Work) -> asyncio.Task[str]:
    task = asyncio.create_task(turn(work))
    await asyncio.to_thread(work.begun.wait)
    return task


async def test_what_has_begun_is_done_to_its_end_and_what_waits_is_not_begun() -> None:
    turn, first, second = HostTurn(), Work(), Work()
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


async def test_what_fails_when_nobody_is_left_is_told_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    turn, work = HostTurn(), Work()

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
def make_watch(profile_text: str, counters: Counters, tmp_path: Path) -> Callable[[HostTurn], HostWatch]:
    """A watch over a host whose device is not there."""

    def make(turn: HostTurn) -> HostWatch:
        profile = parse_client(profile_text)
        driver = Driver(asyncio.get_running_loop())
        resolver = RoadResolver(1, counters)
        connector = Connector(profile, lambda road: dial_options(profile, road, resolver), counters)
        connection = Connection(
            profile,
            connector,
            driver,
            counters,
            session_made=lambda hello: None,
            session_lost=lambda now: None,
        )
        network = HostNetwork(host_state(profile, has_ipv6=True), tmp_path)
        return HostWatch(profile, network, connection, resolver, driver, counters, turn)

    return make


@pytest.mark.parametrize("turns", range(6))
async def test_once_the_watch_has_stopped_it_does_nothing_to_the_host(
    make_watch: Callable[[HostTurn], HostWatch], caplog: pytest.LogCaptureFixture, turns: int
) -> None:
    caplog.set_level(logging.INFO)
    turn, work = HostTurn(), Work()
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
