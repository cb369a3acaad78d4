"""How sessions end: the exit goes, a client is removed, nobody is there for long."""

from __future__ import annotations

import asyncio
import os
import resource
import secrets
import time

import pytest

from halftunnel_vpn.client import backoff
from halftunnel_vpn.errors import RoadError
from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.protocol.stream_messages import ResetCode
from halftunnel_vpn.server import exit as exit_module
from halftunnel_vpn.server.guard_file import GUARD_FILE

UP, DOWN = Direction.UPSTREAM, Direction.DOWNSTREAM


async def test_an_exit_that_stops_tells_its_clients_at_once(running_exit, make_client, echo_server, until):
    await running_exit.start()
    clients = [await make_client(name).up() for name in ("laptop", "phone")]
    users = [client.open(echo_server.port) for client in clients for _ in range(3)]
    for user in users:
        await user.heard("opened")
    await running_exit.stop()
    await until(lambda: all(user.events[-1] == "aborted SHUTDOWN" for user in users))  # nobody else says so
    assert [client.counters.counted["sessions-ended-by-exit"] for client in clients] == [1, 1]
    assert [client.connection.state for client in clients] == ["reconnecting"] * 2
    await until(lambda: not echo_server.open)


async def test_a_client_that_is_removed_loses_its_session_and_comes_in_no_more(
    running_exit, make_client, echo_server, until, monkeypatch
):
    monkeypatch.setattr(exit_module, "HOUSEKEEPING_INTERVAL", 0.1)
    monkeypatch.setattr(backoff, "FIRST_DELAY", 0.1)
    await running_exit.start()
    client, other = await make_client("laptop").up(), await make_client("phone").up()
    user, theirs = client.open(echo_server.port), other.open(echo_server.port)
    await user.heard("opened")
    await theirs.heard("opened")
    running_exit.remove("laptop")
    await until(lambda: user.events[-1].startswith("aborted"))
    assert not running_exit.sessions("laptop")
    await until(lambda: running_exit.dropped["handshake-unknown-client"] >= 2)
    assert client.connection.session is None
    assert await theirs.echo(b"still here") == b"still here"
    assert other.losses == 0
    with pytest.raises(RoadError, match="still on the exit's list"):
        await client.connector.new_session()


async def test_a_key_that_is_replaced_in_place_ends_the_session_of_the_old_one(
    running_exit, make_client, echo_server, until, monkeypatch
):
    monkeypatch.setattr(exit_module, "HOUSEKEEPING_INTERVAL", 0.1)
    await running_exit.start()
    client = await make_client("laptop").up()
    user = client.open(echo_server.port)
    await user.heard("opened")
    file = running_exit.directory / "clients" / "laptop.toml"
    long_ago = time.time_ns() - 10_000_000_000
    for path in (file, file.parent):
        os.utime(path, ns=(long_ago, long_ago))
    running_exit.exit.clients.refresh()
    running_exit.admit("laptop")  # the same file with another key: no file came or went
    await until(lambda: user.events[-1].startswith("aborted"))
    assert not running_exit.sessions("laptop") and running_exit.counted["sessions-revoked"] == 1


async def test_housekeeping_survives_a_lack_of_descriptors(
    running_exit, make_client, echo_server, until, monkeypatch
):
    monkeypatch.setattr(exit_module, "HOUSEKEEPING_INTERVAL", 0.05)
    await running_exit.start()
    client = await make_client().up()
    user = client.open(echo_server.port)
    await user.heard("opened")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        await until(lambda: running_exit.dropped["addresses-not-read"] >= 2)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert await user.echo(b"still here") == b"still here"
    running_exit.remove("laptop")
    await until(lambda: user.events[-1].startswith("aborted"))


async def test_a_client_that_is_admitted_while_the_exit_runs_comes_in(running_exit, make_client, echo_server):
    await running_exit.start()
    client = await make_client("newcomer").up()
    user = client.open(echo_server.port)
    assert await user.echo(b"hello") == b"hello"


async def test_a_session_that_nobody_comes_back_to_leaves(running_exit, make_client, echo_server, until):
    await running_exit.start()
    running_exit.exit.registry.idle_timeout = 0.3
    client = await make_client().up()
    user = client.open(echo_server.port)
    await user.heard("opened")
    for listener in running_exit.listeners:
        await listener.stop_accepting()
    for road in Direction:
        for leg in client.legs(road):
            leg.abort()
    await until(lambda: not running_exit.sessions())
    assert running_exit.counted["sessions-expired"] == 1
    await until(lambda: not echo_server.open)
    assert running_exit.exit.nat.total == 0


async def test_a_quiet_session_with_legs_stays(running_exit, make_client, echo_server):
    await running_exit.start(keepalive=1.0)
    running_exit.exit.registry.idle_timeout = 0.1
    client = await make_client(limits={"keepalive": 1.0}).up()
    user = client.open(echo_server.port)
    await user.heard("opened")
    await asyncio.sleep(1.5)
    assert len(running_exit.sessions()) == 1
    assert await user.echo(secrets.token_bytes(1000))
    assert client.losses == 0 and not client.counters.counted["legs-lost-upstream"]
    assert client.connection.session.round_trip < 10, "it is measured"


async def test_the_guard_survives_a_restart_in_a_file_and_a_broken_file_is_told(
    running_exit, make_client, caplog
):
    await running_exit.start()
    client = await make_client().up()
    await client.down()
    await running_exit.stop()
    guard = running_exit.directory / GUARD_FILE
    assert guard.read_text().startswith("{")
    guard.write_text('{"no key": "no time"}')
    await running_exit.start()
    assert "cannot be read and starts empty" in caplog.text
    await make_client("phone").up()


async def test_a_guard_that_cannot_be_written_is_told_once(running_exit, make_client, caplog, until):
    await running_exit.start()
    (running_exit.directory / GUARD_FILE).mkdir()
    await make_client("laptop").up()
    await until(lambda: running_exit.dropped == {"guard-not-saved": 1})
    await make_client("phone").up()
    await until(lambda: running_exit.dropped == {"guard-not-saved": 2})
    assert caplog.text.count("cannot be written") == 1


async def test_an_exit_that_stops_delivers_what_it_has_and_takes_nothing_new(
    running_exit, make_client, echo_server, until
):
    await running_exit.start()
    client = await make_client().up()
    user = client.open(echo_server.port)
    await user.heard("opened")
    data = secrets.token_bytes(3_000_000)
    await user.send(data)
    sent = user.stream.sending
    await until(lambda: sent.finished)  # the exit has it, and most of it is on its way back
    stopping = asyncio.ensure_future(running_exit.stop())
    await until(lambda: running_exit.exit.nat.is_stopping)
    await stopping
    await until(lambda: user.events[-1] == "aborted SHUTDOWN")
    assert bytes(user.received) == data[: len(user.received)]


async def test_a_stopping_exit_refuses_new_streams_and_waits_no_longer_than_it_may(
    running_exit, make_client, echo_server, until
):
    await running_exit.start(stop_timeout=1.0)
    client = await make_client().up()
    reader = client.open(echo_server.port)
    await reader.heard("opened")
    (downstream,) = client.legs(Direction.DOWNSTREAM)
    downstream._transport.pause_reading()  # so nothing is ever acknowledged to the exit
    await reader.send(b"an echo that is owed for ever")
    (member,) = running_exit.sessions()
    await until(lambda: not member.session.leg_set.owes_nothing)
    stopping = asyncio.ensure_future(running_exit.stop())
    await until(lambda: running_exit.exit.nat.is_stopping)
    late = client.open(echo_server.port)
    async with asyncio.timeout(30):
        await stopping
    downstream._transport.resume_reading()
    await late.until(lambda: late.events)
    assert late.events == ["refused SHUTDOWN"]
    await until(lambda: reader.events[-1] == "aborted SHUTDOWN")


async def test_a_client_that_leaves_delivers_what_its_flows_have_sent(
    running_exit, make_client, echo_server, until
):
    await running_exit.start()
    client = await make_client().up()
    user = client.open(echo_server.port)
    await user.heard("opened")
    await user.send(secrets.token_bytes(2_000_000))
    await client.connection.drain()
    assert user.stream.sending.finished


async def test_streams_leave_descriptors_for_legs(running_exit, make_client, echo_server, monkeypatch):
    monkeypatch.setattr("resource.getrlimit", lambda kind: (8, 8))
    await running_exit.start()
    client = await make_client().up()
    users = [client.open(echo_server.port) for _ in range(8)]
    for user in users[:6]:
        await user.heard("opened")
    for user in users[6:]:
        await user.heard("refused LIMIT")
    assert running_exit.dropped == {"stream-limit": 2}


async def test_sessions_that_the_exit_ends_at_once_are_made_after_ever_longer_pauses(
    running_exit, make_client, until, monkeypatch
):
    monkeypatch.setattr(backoff, "FIRST_DELAY", 0.3)
    await running_exit.start()
    client = await make_client().up()

    async def end_sessions():
        while True:
            running_exit.exit.registry.close_all(ResetCode.SHUTDOWN)
            await asyncio.sleep(0.001)

    began = time.monotonic()
    ending = asyncio.ensure_future(end_sessions())
    await until(lambda: running_exit.counted["handshakes-accepted"] >= 5)
    ending.cancel()
    assert time.monotonic() - began > 0.15 + 0.22 + 0.33
    assert client.counters.counted["sessions-too-short"] >= 3
    await until(lambda: client.connection.state == "connected")


class Failing:
    """The user of a stream, with a fault in its code."""

    def __init__(self, stream):
        self._user = stream.handler

    def aborted(self, code, now):
        self._user.aborted(code, now)
        raise ZeroDivisionError


@pytest.fixture
async def faults():
    """What reaches the loop's exception handler."""
    seen = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: seen.append(context["exception"]))
    yield seen
    loop.set_exception_handler(None)


async def test_a_stream_that_fails_at_the_end_of_its_session_ends_nothing_else(
    running_exit, make_client, echo_server, until, faults
):
    await running_exit.start()
    first, second = [await make_client(name).up() for name in ("laptop", "phone")]
    for client in (first, second):
        await client.open(echo_server.port).heard("opened")
    (stream,) = first.connection.session.streams.values()
    stream.handler = Failing(stream)
    first.connection._keepers.expire()
    await until(lambda: first.connection.session_number == 2)
    assert not first._running.done()
    (member,) = running_exit.sessions("phone")
    (stream,) = member.session.streams.values()
    stream.handler = Failing(stream)
    running_exit.exit.registry.close_all(ResetCode.SHUTDOWN)
    assert [type(fault) for fault in faults] == [ZeroDivisionError] * 2
    assert not running_exit.sessions("laptop") and not running_exit.sessions("phone")
    await until(lambda: [first.connection.state, second.connection.state] == ["connected"] * 2)
