"""The daemon between two attempts, in this process: its roads lead to a port where nobody listens."""

from __future__ import annotations

import asyncio
import re
import socket

import pytest

from halftunnel_vpn.client import backoff
from halftunnel_vpn.daemon.log_ring import LogRing
from halftunnel_vpn.daemon.main import Daemon
from halftunnel_vpn.host.record.wanted import Wanted
from halftunnel_vpn.transport.driver import Driver

pytestmark = pytest.mark.root


@pytest.fixture
def closed_port():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


async def next_failure(daemon: Daemon, since: int = 0) -> int:
    """Serial of the first event after ``since`` that says what went wrong."""
    async with asyncio.timeout(60):
        while True:
            for event in await daemon.events(since, 10):
                since = event["serial"]
                if event["sentence"]:
                    return since


async def test_up_tries_at_once_what_waits_for_its_next_attempt(
    store, profile_text, closed_port, tmp_path, monkeypatch
):
    for name in ("FIRST_DELAY", "MAX_DELAY"):
        monkeypatch.setattr(backoff, name, 3600.0)
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    text = re.sub(r'"wss://[^"]*"', f'"ws://127.0.0.1:{closed_port}/"', profile_text)
    store.put("home", text.replace("portal_probe = true", "portal_probe = false"))
    Wanted("home", up=True).save(tmp_path)  # as after a boot: it goes on trying
    driver = Driver(asyncio.get_running_loop())
    daemon = Daemon(driver, store, LogRing(driver.loop))
    await daemon.begin()
    running = asyncio.create_task(daemon.run())
    try:
        first = await next_failure(daemon)
        assert daemon.machine.state.name == "connecting"
        await daemon.up(None)
        await next_failure(daemon, first)
    finally:
        daemon.stop()
        await running
        driver.close()
