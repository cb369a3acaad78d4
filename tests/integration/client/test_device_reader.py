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
from halftunnel_vpn.inet import ip, vnet
from halftunnel_vpn.transport.driver import Driver
from halftunnel_vpn.tun.device import TunDevice

UNKNOWN = vnet.PLAIN + ip.build(bytes((10, 0, 0, 1)), bytes((192, 0, 2, 1)), 99, 8) + bytes(8)
"""A frame of a protocol that is not carried: it is counted, and answered with an ICMP error."""

COUNTER = "ip-protocol-unreachable"


class Host:
    """Sends frames, and says after which of them each batch ended: when the pump ran that each wakes."""

    def __init__(self, sock: socket.socket, driver: Driver, counters: Counters) -> None:
        self.pump = driver.pump(self.flushed)
        self._sock = sock
        self._counters = counters
        self._flushed = asyncio.Event()
        self.batches: list[int] = []
        self.now = 100.0
        driver.clock = lambda: self.now

    def flushed(self, now: float) -> None:
        self.batches.append(self._counters.dropped[COUNTER])
        self._flushed.set()

    async def send(self, count: int) -> list[int]:
        """Send frames at once; return how many each batch had, once all are taken."""
        before = self._counters.dropped[COUNTER]
        self.batches.clear()
        for _ in range(count):
            self._sock.send(UNKNOWN)
        while self._counters.dropped[COUNTER] < before + count:
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
            write=lambda parts: made.pump.wake(),
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
