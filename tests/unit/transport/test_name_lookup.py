"""getaddrinfo that hangs holds nobody up: not who cancels it, not the end of the process."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time

import pytest

from halftunnel_vpn.transport import name_lookup
from halftunnel_vpn.transport.name_lookup import in_thread, look_up


async def test_addresses_are_found_once_each():
    found = await look_up("localhost")
    assert "127.0.0.1" in found and len(found) == len(set(found))


async def test_a_link_local_address_keeps_its_scope():
    assert await look_up("fe80::1%lo") == ["fe80::1%lo"]


async def test_what_is_no_name_is_an_error():
    with pytest.raises((OSError, UnicodeError)):
        await look_up("no-such-host.invalid")


async def test_cancelling_takes_no_time_and_lookups_are_bounded(monkeypatch):
    monkeypatch.setattr(name_lookup, "_under_way", threading.BoundedSemaphore(2))
    over = threading.Event()
    hanging = [asyncio.ensure_future(in_thread(over.wait)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(socket.gaierror):
        await in_thread(over.wait)
    for task in hanging:
        task.cancel()
    async with asyncio.timeout(30):
        await asyncio.wait(hanging)
    assert all(task.cancelled() for task in hanging) and not over.is_set()
    over.set()


PROGRAM = """
import asyncio, threading
from halftunnel_vpn.transport.loop import run
from halftunnel_vpn.transport.name_lookup import in_thread

async def main():
    hanging = asyncio.ensure_future(in_thread(threading.Event().wait))
    await asyncio.sleep(0.1)
    hanging.cancel()

run(main(), nice=0)
"""


def test_the_process_ends_while_one_hangs():
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=60)
    assert time.monotonic() - began < 30
