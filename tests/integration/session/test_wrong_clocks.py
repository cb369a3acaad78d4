"""Wrong clocks, and two devices on one profile: the exit says so, and the client gets in all the same."""

from __future__ import annotations

import time

import pytest

from halftunnel_vpn.client.legs.handshake_clock import HandshakeClock, TimestampMemory
from halftunnel_vpn.protocol.handshake import HandshakeRefused
from halftunnel_vpn.protocol.handshake_payloads import READS_STALE_TIME, ExitStatus
from halftunnel_vpn.protocol.keys import Direction

UP, DOWN = Direction.UPSTREAM, Direction.DOWNSTREAM


def late(seconds, memory=None):
    """A clock that is behind."""
    return HandshakeClock(memory, wall_clock=lambda: time.time() - seconds)


@pytest.mark.parametrize("hours", [-1, 1, 24 * 365])
async def test_a_clock_that_is_wrong_by_more_than_the_exit_takes(
    running_exit, make_client, echo_server, caplog, hours
):
    await running_exit.start()
    client = await make_client(clock=late(hours * 3600)).up()
    user = client.open(echo_server.port)
    assert await user.echo(b"in spite of the clock") == b"in spite of the clock"
    assert client.counters.dropped["handshake-refused-clock-skew"] == 1
    (notice,) = client.connector.clock.notices
    assert "The clock of this machine is" in notice and notice in caplog.text
    assert running_exit.dropped == {"handshake-clock-skew": 1}


async def test_a_later_handshake_needs_no_second_refusal(running_exit, make_client):
    await running_exit.start()
    clock, keys = late(3600), running_exit.admit()
    for _ in range(2):
        client = await make_client(keys=keys, clock=clock).up()
        await client.down()
    assert running_exit.dropped == {"handshake-clock-skew": 1}


async def test_two_devices_on_one_profile(running_exit, make_client, caplog):
    await running_exit.start()
    keys = running_exit.admit()
    first = await make_client(keys=keys, clock=late(-100)).up()
    second = await make_client(keys=keys, clock=late(0)).up()
    assert len(running_exit.sessions()) == 2
    assert second.counters.dropped["handshake-refused-stale-time"] == 1
    assert "another device uses the same profile" in caplog.text
    assert not first.connector.clock.notices and second.connector.clock.notices


async def test_a_clock_set_back_and_a_restart_of_the_client(running_exit, make_client, tmp_path):
    await running_exit.start()
    keys = running_exit.admit()
    for seconds in (0, 200):
        memory = TimestampMemory(tmp_path / "state", keys.public, running_exit.keys.public)
        client = await make_client(keys=keys, clock=late(seconds, memory)).up()
        await client.down()
    assert not running_exit.dropped, "no refusal was needed"


async def test_who_cannot_read_stale_time_hears_nothing(running_exit, raw, attempt):
    """An older client: the exit keeps the silence that it knows."""
    await running_exit.start()
    keys = running_exit.admit()
    for skew in (0, -100):
        made = attempt(keys, skew=skew)
        assert not made.hello.capabilities & READS_STALE_TIME
        up, down = await raw(UP), await raw(DOWN)
        await up.send(made.message)
        if skew:
            await up.wait_closed()
        else:
            await down.send(made.token)
            made.handshake.finish(await down.recv())
    assert running_exit.dropped == {"handshake-replayed": 1}


async def test_an_exit_that_refuses_its_own_time_is_not_asked_for_ever(
    running_exit, make_client, monkeypatch
):
    await running_exit.start()
    client = make_client()
    monkeypatch.setattr(client.connector.clock, "follow", lambda exit_time: None)
    client.connector.clock._wall_clock = lambda: time.time() - 3600
    with pytest.raises(HandshakeRefused) as raised:
        await client.connection.establish()
    assert raised.value.exit_hello.status is ExitStatus.CLOCK_SKEW
    assert running_exit.dropped == {"handshake-clock-skew": 3}
