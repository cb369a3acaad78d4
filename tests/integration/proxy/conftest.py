"""A proxy on loopback whose streams end at an exit in the same process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from lab.in_memory import InMemory, poll
from lab.loopback_names import NameServer, loopback_name_server

from halftunnel_vpn.config.net import Endpoint
from halftunnel_vpn.config.proxy_server import ProxyServerConfig
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import SessionExpired
from halftunnel_vpn.protocol.stream_messages import ResetCode
from halftunnel_vpn.proxy import service
from halftunnel_vpn.proxy.service import ProxyService
from halftunnel_vpn.transport.driver import Driver

ANY_PORT = Endpoint("127.0.0.1", 0)


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


class Opener:
    """The client's session, which may be away for a while. Implements StreamOpener."""

    def __init__(self, tunnel: InMemory) -> None:
        self.session: Any = tunnel.client

    def open_stream(self, request: Any, handler: Any, now: float) -> Any:
        if self.session is None:
            raise SessionExpired("there is no session now")
        return self.session.open_stream(request, handler, now)

    def open_datagrams(self, request: Any, handler: Any, now: float) -> Any:
        if self.session is None:
            raise SessionExpired("there is no session now")
        return self.session.open_datagrams(request, handler, now)


class Proxied:
    """A proxy with its ports, and what both ends have counted."""

    def __init__(
        self, driver: Driver, tasks: asyncio.TaskGroup, config: ProxyServerConfig, **exit_: Any
    ) -> None:
        self.counters = Counters()
        self.exit_counters = Counters()
        self.tunnel = InMemory(driver, self.exit_counters, tasks, **exit_)
        self.opener = Opener(self.tunnel)
        self.driver = driver
        self.service = ProxyService(config, self.opener, driver, self.counters)
        self.service.open()
        self.service.serve()
        self.ports = [listener.port for listener in self.service.listeners]

    async def connect(self, index: int = 0) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the listener of this index."""
        return await asyncio.open_connection("127.0.0.1", self.ports[index])

    async def ask(self, data: bytes, index: int = 0) -> bytes:
        """Send ``data``; return everything that comes until the end."""
        reader, writer = await self.connect(index)
        writer.write(data)
        try:
            async with asyncio.timeout(30):
                return await reader.read()
        finally:
            writer.close()

    async def is_refused(self) -> bool:
        """Whether a further connection is cut off unread."""
        try:
            reader, writer = await self.connect()
            async with asyncio.timeout(30):
                await reader.read()
            writer.close()
        except ConnectionResetError:
            return True
        return False

    async def idle(self) -> None:
        """Wait until no program is connected and no stream is left."""
        await poll(lambda: not self.service.connections)
        await self.tunnel.idle()


@pytest.fixture
async def proxied() -> AsyncIterator[Callable[..., Proxied]]:
    """Makes proxies; everything they have is closed after the test."""
    made: list[Proxied] = []
    unseen: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: unseen.append(context))
    driver = Driver(loop)
    async with asyncio.TaskGroup() as tasks:

        def make(exit_: dict[str, Any] | None = None, **keys: Any) -> Proxied:
            config = ProxyServerConfig(**({"socks": (ANY_PORT,), "http": (ANY_PORT,)} | keys))
            made.append(Proxied(driver, tasks, config, **(exit_ or {})))
            return made[-1]

        yield make
        for one in made:
            one.service.close()
            assert one.service.connections == 0
            now = driver.clock()
            one.tunnel.client.close(ResetCode.SHUTDOWN, now)
            one.tunnel.exit.close(ResetCode.SHUTDOWN, now)
            assert one.tunnel.nat.total == 0
    driver.close()
    assert not unseen


class Server:
    """A server on loopback that sends everything back, and counts connections that were reset."""

    def __init__(self) -> None:
        self.port = 0
        self.resets = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Echo until the end, then close."""
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        except ConnectionResetError:
            self.resets += 1
        writer.close()


@pytest.fixture
async def echo() -> AsyncIterator[Server]:
    """A server that sends everything back."""
    made = Server()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()


@pytest.fixture
def short_path(tmp_path: Path) -> Path:
    """A path that fits a Unix socket."""
    return tmp_path / "p.sock"


@pytest.fixture
def few_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process may open few files."""
    monkeypatch.setattr(service, "open_files", lambda: 4)


@pytest.fixture
async def resolver() -> AsyncIterator[NameServer]:
    """A name server on loopback."""
    async with loopback_name_server() as made:
        yield made
