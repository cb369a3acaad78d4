"""Legs that are cut off come back, and streams go on with all their bytes."""

from __future__ import annotations

import asyncio
import hashlib
import random
import secrets
import time

import pytest

from halftunnel_vpn.client import backoff
from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.protocol.stream_messages import ResetCode

UP, DOWN = Direction.UPSTREAM, Direction.DOWNSTREAM


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    """The first pause before a leg is opened again is a second at most; here it is a tenth."""
    monkeypatch.setattr(backoff, "FIRST_DELAY", 0.1)


@pytest.fixture
def cut(running_exit):
    """Aborts the TCP connection under a leg, at one end or the other."""

    def abort(client, road, *, at="client"):
        if at == "client":
            legs = client.legs(road)
        else:
            (member,) = running_exit.sessions(client.profile.name)
            legs = [state.port._leg for state in member.session.legs_of(road)]
        assert legs, "there is one"
        for leg in legs:
            leg.abort()

    return abort


def is_up(client, running_exit):
    (member,) = running_exit.sessions(client.profile.name)
    return client.connection.state == "connected" and all(member.session.legs_of(road) for road in Direction)


@pytest.mark.parametrize("at", ["client", "exit"])
@pytest.mark.parametrize("road", [UP, DOWN])
async def test_a_leg_that_is_cut_off_comes_back(running_exit, make_client, echo_server, cut, until, road, at):
    await running_exit.start()
    client = await make_client().up()
    user = client.open(echo_server.port)
    await user.heard("opened")
    data = secrets.token_bytes(3_000_000)
    echoing = asyncio.ensure_future(user.echo(data))
    await until(lambda: len(user.received) > 500_000)
    cut(client, road, at=at)
    await until(lambda: client.connection.state == "reconnecting")
    assert await echoing == data
    await until(lambda: is_up(client, running_exit))
    assert client.connection.session_number == 1 and client.losses == 0
    assert user.events == ["opened"]
    assert client.counters.counted[f"legs-lost-{road.name.lower()}"] == 1
    assert not running_exit.dropped


async def test_both_roads_cut_at_once(running_exit, make_client, echo_server, cut, until):
    await running_exit.start()
    client = await make_client().up()
    user = client.open(echo_server.port)
    await user.heard("opened")
    for road in (UP, DOWN):
        cut(client, road)
    await until(lambda: not running_exit.sessions()[0].session.legs)
    data = secrets.token_bytes(100_000)
    assert await user.echo(data) == data
    assert client.connection.session_number == 1
    assert running_exit.counted["legs-joined-upstream"] == 2


async def test_streams_opened_and_closed_while_no_leg_is_up(
    running_exit, make_client, echo_server, cut, until
):
    await running_exit.start()
    client = await make_client().up()
    leaving = client.open(echo_server.port)
    await leaving.heard("opened")
    for road in (UP, DOWN):
        cut(client, road)
    await until(lambda: not client.connection.session.legs)
    leaving.stream.finish()
    given_up = client.open(echo_server.port)
    given_up.stream.reset(ResetCode.NORMAL)
    arriving = client.open(echo_server.port)
    arriving.stream.send(b"early bytes", time.monotonic())
    await arriving.heard("opened")
    await arriving.until(lambda: arriving.received == b"early bytes")
    await leaving.heard("finished")
    await until(lambda: len(running_exit.sessions()[0].session.streams) == 1)
    assert echo_server.connections == 2, "the one that was given up was never dialled"
    assert not running_exit.dropped


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_legs_that_are_cut_all_the_time_lose_nothing(
    running_exit, make_client, echo_server, monkeypatch, seed
):
    monkeypatch.setattr(backoff, "MAX_DELAY", 0.2)
    choose = random.Random(seed)
    await running_exit.start()
    client = await make_client(connections=2).up()
    users = [client.open(echo_server.port) for _ in range(5)]
    data = [secrets.token_bytes(3_000_000) for _ in users]
    echoing = [asyncio.ensure_future(user.echo(piece)) for user, piece in zip(users, data, strict=True)]

    async def cut_all_the_time():
        while True:
            await asyncio.sleep(choose.uniform(0.002, 0.03))
            session = client.connection.session
            if session is not None and session.legs:
                choose.choice(session.legs).port._leg.abort()

    cutting = asyncio.ensure_future(cut_all_the_time())
    try:
        async with asyncio.timeout(60):
            received = await asyncio.gather(*echoing)
    finally:
        cutting.cancel()
    for sent, got in zip(data, received, strict=True):
        assert hashlib.sha256(got).digest() == hashlib.sha256(sent).digest()
    lost = client.counters.counted
    assert lost["legs-lost-upstream"] + lost["legs-lost-downstream"] >= 5
    assert client.connection.session_number == 1 and client.losses == 0
    assert not running_exit.dropped


async def test_an_exit_that_has_forgotten_the_session_gives_a_new_one(
    running_exit, make_client, echo_server, cut, until
):
    await running_exit.start()
    running_exit.exit.registry.idle_timeout = 0  # a client is back within milliseconds
    client = await make_client().up()
    user = client.open(echo_server.port)
    await user.heard("opened")
    for road in (UP, DOWN):
        cut(client, road)
    await until(lambda: not running_exit.sessions())
    assert running_exit.counted["sessions-expired"] == 1 and running_exit.exit.nat.total == 0
    await until(lambda: client.connection.session_number == 2)
    await until(lambda: client.connection.state == "connected")
    assert client.losses == 1 and user.events == ["opened", "aborted SHUTDOWN"]
    again = client.open(echo_server.port)
    assert await again.echo(b"anew") == b"anew"
    assert running_exit.dropped["join-unknown"] >= 1


async def test_an_exit_that_restarts_gives_a_new_session(running_exit, make_client, echo_server, until):
    await running_exit.start()
    client = await make_client().up()
    before = client.open(echo_server.port)
    await before.heard("opened")
    await running_exit.stop()
    await until(lambda: before.events[-1] == "aborted SHUTDOWN")
    assert client.connection.state == "reconnecting"
    await running_exit.start()
    await until(lambda: client.connection.state == "connected")
    assert client.connection.session_number == 2
    again = client.open(echo_server.port)
    assert await again.echo(b"anew") == b"anew"


async def test_an_exit_that_stays_away_ends_the_session_after_its_idle_timeout(
    running_exit, make_client, echo_server, cut, until
):
    await running_exit.start()
    client = await make_client().up()
    user = client.open(echo_server.port)
    await user.heard("opened")
    client.connection._idle_timeout = 0.5
    for listener in running_exit.listeners:
        await listener.stop_accepting()
    for road in (UP, DOWN):
        cut(client, road)
    await until(lambda: client.counters.counted["sessions-given-up"] == 1)
    await until(lambda: user.events[-1] == "aborted SHUTDOWN")
    assert client.connection.session is None and client.connection.state == "reconnecting"
