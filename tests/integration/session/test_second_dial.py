"""A road that swallows one connection costs a second, not a time-out."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from halftunnel_vpn.protocol.keys import Direction

UP, DOWN = Direction.UPSTREAM, Direction.DOWNSTREAM

TIMES = {"connect_timeout": 100.0, "handshake_timeout": 100.0}
"""A dial that hangs is not over before the test is."""


class StickyRelay:
    """Leads to a road of the exit without TLS; connections can get stuck, at once or after the upgrade."""

    def __init__(self, host, port):
        self._road = host, port
        self.sticks = None
        """When the next connection gets stuck: None (never), ``connected`` or ``upgraded``."""
        self.stuck = 0
        self.passed = 0
        self._tasks = set()
        self._writers = []

    async def serve(self, reader, writer):
        self._writers.append(writer)
        self._tasks.add(asyncio.current_task())
        sticks, self.sticks = self.sticks, None
        if sticks == "connected":
            self.stuck += 1
            await asyncio.Event().wait()
        far_reader, far_writer = await asyncio.open_connection(*self._road)
        self._writers.append(far_writer)
        self.passed += sticks is None
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            far_writer.write(await reader.readuntil(b"\r\n\r\n"))
            writer.write(await far_reader.readuntil(b"\r\n\r\n"))
            if sticks == "upgraded":
                self.stuck += 1
                await asyncio.Event().wait()
            await asyncio.gather(self._pipe(reader, far_writer), self._pipe(far_reader, writer))

    async def _pipe(self, source, sink):
        while data := await source.read(1 << 16):
            sink.write(data)
            await sink.drain()
        sink.close()

    def cut(self):
        """End what there is."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def close(self):
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.fixture
async def relay(running_exit):
    """Before the upstream road."""
    await running_exit.start(tls=False)
    made = StickyRelay(running_exit.addresses[UP], running_exit.ports[UP])
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    made.url = running_exit.url(UP).replace(str(running_exit.ports[UP]), str(port))
    yield made
    server.close()
    await made.close()


async def test_the_first_dial_of_a_session_that_hangs(relay, make_client, running_exit):
    relay.sticks = "connected"
    async with asyncio.timeout(60):
        client = await make_client(urls={UP: [relay.url]}, limits=TIMES).up()
    assert relay.stuck == 1 and client.counters.counted["dials-repeated"] >= 1
    assert len(running_exit.sessions()) == 1


@pytest.mark.parametrize("sticks", ["connected", "upgraded"])
async def test_a_leg_that_hangs_while_it_comes_back(
    relay, make_client, running_exit, echo_server, until, sticks
):
    client = await make_client(urls={UP: [relay.url]}, limits=TIMES).up()
    user = client.open(echo_server.port)
    assert await user.echo(b"before") == b"before"
    joined = running_exit.counted["legs-joined-upstream"]
    relay.sticks = sticks
    relay.cut()
    async with asyncio.timeout(60):
        assert await user.echo(b"after") == b"after"
    assert relay.stuck == 1 and client.connection.session_number == 1
    assert running_exit.counted["legs-joined-upstream"] == joined + 1, "never two of one race"
    assert len(client.legs(UP)) == 1
