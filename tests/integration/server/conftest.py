"""A driver on a real event loop, of either kind, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import uvloop
from lab.in_memory import InMemory, poll
from lab.loopback_names import NameServer, loopback_name_server

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.protocol.stream_messages import ResetCode
from halftunnel_vpn.transport.driver import Driver


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
def until() -> Callable[[Callable[[], Any]], Any]:
    """Waits for what nobody announces."""
    return poll


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
async def driver() -> AsyncIterator[Driver]:
    """Real time, real sockets."""
    made = Driver(asyncio.get_running_loop())
    yield made
    made.close()


def tcp_sockets() -> set[str]:
    """The TCP sockets of this process."""
    found = set()
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{descriptor}")
            if target.startswith("socket:"):
                with socket.socket(fileno=os.dup(int(descriptor))) as sock:
                    if sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM:
                        found.add(target)
    return found


@pytest.fixture
async def nothing_left_behind() -> AsyncIterator[None]:
    """The test leaves no socket open, and no exception that nobody saw."""
    unseen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: unseen.append(context))
    before = tcp_sockets()
    yield
    assert tcp_sockets() <= before
    assert not unseen


@pytest.fixture
def listening() -> Iterator[Callable[..., socket.socket]]:
    """Makes sockets that listen on loopback; ``full`` ones never answer, since their queue is full."""
    made: list[socket.socket] = []

    def listen(address: str = "127.0.0.1", port: int = 0, *, full: bool = False) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        made.append(sock)
        sock.bind((address, port))
        sock.listen(0 if full else 64)
        if full:
            for _ in range(2):
                filler = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                made.append(filler)
                filler.connect_ex(sock.getsockname())
        return sock

    yield listen
    for sock in made:
        sock.close()


@pytest.fixture
async def in_memory(driver: Driver, counters: Counters) -> AsyncIterator[Callable[..., InMemory]]:
    """Makes a client and an exit; what is still open is closed after the test."""
    made: list[InMemory] = []
    async with asyncio.TaskGroup() as tasks:

        def make(**changes: Any) -> InMemory:
            made.append(InMemory(driver, counters, tasks, **changes))
            return made[-1]

        yield make
        for one in made:
            one.client.close(ResetCode.SHUTDOWN, driver.clock())
            one.exit.close(ResetCode.SHUTDOWN, driver.clock())
            assert one.nat.total == 0


@pytest.fixture
async def resolver() -> AsyncIterator[NameServer]:
    """A name server on loopback."""
    async with loopback_name_server() as made:
        yield made
