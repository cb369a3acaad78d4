"""A connector stops when it is cancelled, whatever its dials are doing at that moment."""

from __future__ import annotations

import asyncio
import dataclasses
import socket

import pytest

from halftunnel_vpn.client.legs.connector import Connector
from halftunnel_vpn.client.legs.handshake_clock import HandshakeClock
from halftunnel_vpn.config.client import parse_client
from halftunnel_vpn.errors import RoadError
from halftunnel_vpn.transport.dial import DialOptions


@pytest.fixture
def closed_port(free_port):
    """A port of loopback that refuses."""
    return free_port()


@pytest.fixture
def silent_port():
    """A port of loopback that takes connections and never says a word."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(256)
        yield sock.getsockname()[1]


@pytest.fixture
def connector(profile_text, counters):
    """A connector whose roads lead to two ports of loopback."""

    def make(upstream, downstream):
        profile = parse_client(profile_text)
        roads = {
            name: dataclasses.replace(getattr(profile, name), urls=(f"ws://127.0.0.1:{port}/",))
            for name, port in (("upstream", upstream), ("downstream", downstream))
        }
        return Connector(dataclasses.replace(profile, **roads), lambda road: DialOptions(), counters)

    return make


@pytest.mark.parametrize("failing", ["upstream", "downstream"])
async def test_one_road_that_fails_ends_the_attempt_on_the_other(
    connector, closed_port, silent_port, failing
):
    ports = (closed_port, silent_port) if failing == "upstream" else (silent_port, closed_port)
    with pytest.raises(RoadError) as raised:
        async with asyncio.timeout(30):
            await connector(*ports).new_session()
    assert raised.value.reason == "connection-refused"
    assert str(raised.value).startswith(failing.capitalize())


@pytest.mark.parametrize("turns", range(40))
async def test_told_to_stop_in_the_very_turn_in_which_a_dial_fails(
    connector, closed_port, silent_port, turns
):
    """In one of these turns the refusal has just arrived: then, too, it is the stop that counts."""
    attempt = asyncio.ensure_future(connector(closed_port, silent_port).new_session())
    for _ in range(turns):
        await asyncio.sleep(0)
    if attempt.done():
        assert isinstance(attempt.exception(), RoadError)
        return
    attempt.cancel()
    await asyncio.wait((attempt,))
    assert attempt.cancelled(), "who cancels must not be told of a road that failed"


class WatchedClock(HandshakeClock):
    """A clock that notes when it is asked, and takes until it is let go, as a slow disk does."""

    def __init__(self):
        super().__init__()
        self.asked = asyncio.Event()
        self.written = asyncio.Event()

    async def next(self):
        self.asked.set()
        await self.written.wait()
        return await super().next()


async def test_the_time_of_the_handshake_is_written_while_the_legs_are_dialled(connector, silent_port):
    clock = WatchedClock()
    made = connector(silent_port, silent_port)
    made.clock = clock
    attempt = asyncio.ensure_future(made.new_session())
    async with asyncio.timeout(30):
        await clock.asked.wait()  # no leg can be open: nobody answers
    attempt.cancel()
    await asyncio.sleep(0)
    assert not attempt.done(), "the file is being written"
    clock.written.set()
    with pytest.raises(asyncio.CancelledError):
        await attempt
