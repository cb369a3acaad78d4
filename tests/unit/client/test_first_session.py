"""The first session and the check of the host, at the same time: each may fail, hang, or be stopped."""

from __future__ import annotations

import asyncio
from unittest.mock import sentinel

import pytest

from halftunnel_vpn.client import first_session as module
from halftunnel_vpn.client.first_session import first_session
from halftunnel_vpn.errors import HostError, RoadError


class Part:
    """Either of the two: it runs until a test lets it return or raise."""

    def __init__(self) -> None:
        self.outcome: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self.has_begun = asyncio.Event()
        self.was_cancelled = False

    async def run(self):
        self.has_begun.set()
        try:
            return await self.outcome
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise


class Start:
    def __init__(self) -> None:
        self.check, self.connect = Part(), Part()
        self.stopped: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        work = first_session(self.check.run(), self.connect.run(), self.stopped)
        self.task = asyncio.ensure_future(work)


@pytest.fixture
async def start():
    start = Start()
    async with asyncio.timeout(30):
        await start.check.has_begun.wait()
        await start.connect.has_begun.wait()
        yield start
    assert start.task.done()


async def test_the_session_is_returned_when_the_host_was_checked_too(start):
    start.connect.outcome.set_result(sentinel.session)
    await asyncio.sleep(0)
    assert not start.task.done()
    start.check.outcome.set_result(None)
    assert await start.task is sentinel.session


async def test_a_handshake_may_end_after_the_host_has_refused(start):
    """So that its session can be ended at the exit."""
    start.check.outcome.set_exception(HostError("the name is taken"))
    start.connect.outcome.get_loop().call_soon(start.connect.outcome.set_result, sentinel.session)
    with pytest.raises(HostError, match="taken"):
        await start.task
    assert not start.connect.was_cancelled


async def test_a_handshake_that_hangs_is_given_up_when_the_host_has_refused(start, monkeypatch):
    monkeypatch.setattr(module, "LAST_CHANCE", 0.01)
    start.check.outcome.set_exception(HostError("the name is taken"))
    with pytest.raises(HostError, match="taken"):
        await start.task
    assert start.connect.was_cancelled


async def test_the_failure_of_the_handshake_waits_for_the_check_of_the_host(start):
    start.connect.outcome.set_exception(RoadError("no route", reason="network-unreachable"))
    await asyncio.sleep(0)
    assert not start.task.done()
    start.check.outcome.set_result(None)
    with pytest.raises(RoadError, match="no route"):
        await start.task


async def test_the_host_is_blamed_first(start):
    start.connect.outcome.set_exception(RoadError("no route", reason="network-unreachable"))
    start.check.outcome.set_exception(HostError("the name is taken"))
    with pytest.raises(HostError, match="taken"):
        await start.task


@pytest.mark.parametrize("is_checked", [False, True])
async def test_a_stop_ends_both(start, is_checked):
    if is_checked:
        start.check.outcome.set_result(None)
    start.stopped.set_result(True)
    assert await start.task is None
    assert start.connect.was_cancelled and start.check.was_cancelled is not is_checked


async def test_a_cancellation_ends_both(start):
    start.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start.task
    assert start.connect.was_cancelled and start.check.was_cancelled
