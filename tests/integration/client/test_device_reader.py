"""How many frames of the host are taken at a time, from a file that gives one frame for each read."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import socket
from collections.abc import AsyncIterator

import pytest

from halftunnel_vpn.client.device_reader import SILENCE, DeviceReader
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.flow.flow_config import FlowConfig
from halftunnel_vpn.flow.flow_context import FlowContext
from halftunnel_vpn.flow.tracker import FlowTracker
from halftunnel_vpn.transport.driver import Driver
from halftunnel_vpn.tun.device import TunDevice

NO_PACKET = bytes(12)
"""A frame that is dropped and counted, because it is too short."""


class Host:
    """Sends frames, and says after which of them each batch ended."""

    def __init__(self, sock: socket.socket, driver: Driver, counters: Counters) -> None:
        self._sock = sock
        self._counters = counters
        self._flushed = asyncio.Event()
        self.batches: list[int] = []
        self.now = 100.0
        driver.clock = lambda: self.now

    def flushed(self) -> None:
        self.batches.append(self._counters.dropped["ip-too-short"])
        self._flushed.set()

    async def send(self, count: int) -> list[int]:
        """Send frames at once; return how many each batch had, once all are taken."""
        before = self._counters.dropped["ip-too-short"]
        self.batches.clear()
        for _ in range(count):
            self._sock.send(NO_PACKET)
        while self._counters.dropped["ip-too-short"] < before + count:
            self._flushed.clear()
            await self._flushed.wait()
        ends = [before, *self.batches]
        return [end - start for start, end in itertools.pairwise(ends)]


@pytest.fixture
async def host(counters: Counters) -> AsyncIterator[Host]:
    """A host whose device is read. Its packets open nothing, so nothing stands behind the tracker."""
    driver = Driver(asyncio.get_running_loop())
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    with near, far:
        made = Host(far, driver, counters)
        device = TunDevice(near.fileno(), "test0", uso=False, counters=counters)
        context = FlowContext(
            write=device.write,
            segments=False,
            dns=None,
            wheel=driver.wheel,
            counters=counters,
            clock=driver.clock,
            random=secrets.token_bytes,
        )
        reader = DeviceReader(
            device,
            FlowTracker(context, None, FlowConfig()),
            driver,
            flushed=made.flushed,
            failed=lambda: None,
        )
        reader.start()
        yield made
        reader.stop()
    driver.close()


async def test_the_first_frame_after_a_silence_waits_for_no_other(host):
    assert await host.send(5) == [1, 4]
    host.now += SILENCE / 2
    assert await host.send(5) == [5]
    host.now += 2 * SILENCE
    assert await host.send(1) == [1]
    host.now += 2 * SILENCE
    assert await host.send(3) == [1, 2]
