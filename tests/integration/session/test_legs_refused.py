"""An exit at its limits refuses legs: the session goes on, and the leg for what is urgent gives way first."""

from __future__ import annotations

import dataclasses
import time

import pytest

from halftunnel_vpn.client import backoff
from halftunnel_vpn.client.legs.circuit_breaker import Circuit
from halftunnel_vpn.client.legs.leg_numbers import MAX_AHEAD_OF_FURTHER, MAX_LEG_NUMBER_AHEAD
from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.protocol.stream_messages import KeepaliveKind

UP, DOWN = Direction.UPSTREAM, Direction.DOWNSTREAM


@pytest.fixture
def quick_attempts(monkeypatch):
    """Shortens the pauses between attempts."""
    monkeypatch.setattr(backoff, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(backoff, "MAX_DELAY", 0.01)


def set_limit(running_exit, legs):
    """Set how many legs each client may have. Only further legs are checked against it."""
    gate = running_exit.exit.gate
    gate._limits = dataclasses.replace(gate._limits, legs_per_client=legs)


def lose(end, way):
    """Report at one end that the path of its first leg of ``way`` loses."""
    session = end.connection.session if hasattr(end, "connection") else end.session
    session.leg_repeats(session.legs_of(way)[0], time.monotonic())


async def test_refused_further_legs_never_end_the_session(
    running_exit, make_client, echo_server, until, quick_attempts
):
    await running_exit.start(strangers_per_peer=1000, arrivals_per_peer=1000)
    set_limit(running_exit, 2)
    client = await make_client(connections=3).up()
    user = client.open(echo_server.port)
    await until(lambda: running_exit.dropped["join-client-legs"] >= 2 * MAX_AHEAD_OF_FURTHER)
    await until(lambda: client.counters.dropped["join-numbers-kept"] >= 2 * MAX_LEG_NUMBER_AHEAD)
    assert running_exit.dropped["join-client-legs"] < 2 * MAX_LEG_NUMBER_AHEAD
    set_limit(running_exit, 100)
    for leg in client.legs(UP):
        leg.abort()
    assert await user.echo(b"numbers are left for the first legs") == b"numbers are left for the first legs"
    await until(lambda: len(client.legs(UP)) == 3)
    assert client.connection.session_number == 1 and user.events == ["opened"]


async def test_a_url_that_refuses_every_leg_never_ends_the_session(
    running_exit, make_client, echo_server, until, quick_attempts
):
    await running_exit.start(one_port=True, strangers_per_peer=1000, arrivals_per_peer=1000)
    urls = [running_exit.url(UP), running_exit.url(DOWN)]  # the exit takes no upstream leg at the second one
    client = await make_client(urls={UP: urls}).up()
    user = client.open(echo_server.port)
    await until(lambda: running_exit.dropped["join-on-wrong-path"] >= MAX_LEG_NUMBER_AHEAD + 2)
    assert client.counters.counted["legs-replaced"] >= 2, "each makes numbers free"
    assert await user.echo(b"goes on") == b"goes on"
    assert client.connection.session_number == 1 and user.events == ["opened"]


@pytest.mark.parametrize("way", [UP, DOWN])
async def test_the_leg_for_what_is_urgent_gives_way_to_a_replacement(
    running_exit, make_client, echo_server, until, way
):
    await running_exit.start()
    client = await make_client().up()
    user = client.open(echo_server.port)
    await user.heard("opened")
    (member,) = running_exit.sessions()
    lose(client if way is UP else member, way)
    await until(lambda: len(client.legs(way)) == 2)
    (urgent,) = [leg for leg in client.connection.legs() if leg.is_urgent]
    assert urgent.direction is way
    set_limit(running_exit, 2)
    client.connection.reconnect()
    await until(lambda: not any(leg.is_urgent for leg in client.connection.legs()))
    await until(lambda: client.counters.counted["legs-replaced"] == 2)
    lose(client if way is UP else member, way)
    await until(lambda: [len(client.legs(road)) for road in Direction] == [1, 1])
    assert await user.echo(b"goes on") == b"goes on"
    assert client.counters.counted[f"urgent-legs-wanted-{way.name.lower()}"] == 1, "not at once again"
    assert client.counters.counted[f"urgent-legs-gave-way-{way.name.lower()}"] == 1
    assert client.connection.session_number == 1 and user.events == ["opened"]


async def test_a_leg_for_what_is_urgent_that_is_refused_is_not_tried_again_and_again(
    running_exit, make_client, echo_server, until, quick_attempts
):
    await running_exit.start()
    client = await make_client(connections=2).up()
    await until(lambda: len(client.connection.legs()) == 4)
    set_limit(running_exit, 2)
    lose(client, UP)
    await until(lambda: client.counters.counted["urgent-legs-gave-way-upstream"])
    lose(client, UP)
    assert await client.open(echo_server.port).echo(b"enough legs") == b"enough legs"
    assert running_exit.dropped == {"join-client-legs": 1}
    assert client.counters.counted["urgent-legs-wanted-upstream"] == 1
    assert len(client.connection.legs()) == 4


async def test_a_leg_for_what_is_urgent_that_cannot_be_dialled_counts_against_no_url(
    running_exit, make_client, until
):
    await running_exit.start()
    client = await make_client().up()
    for listener in running_exit.listeners:
        await listener.stop_accepting()
    lose(client, UP)
    await until(lambda: client.counters.dropped["join-connection-refused"])
    (breaker,) = client.connector.roads.breakers[UP].values()
    assert breaker.circuit is Circuit.CLOSED, "the leg of the profile may be replaced at once"
    assert client.counters.counted["urgent-legs-gave-way-upstream"] == 1


@pytest.mark.parametrize("mode", ["split", "strong"])
async def test_a_shaped_session_opens_none_whatever_the_exit_says(
    running_exit, make_client, echo_server, mode
):
    await running_exit.start()
    client = await make_client(shaping={"mode": mode}).up()
    user = client.open(echo_server.port)
    await user.heard("opened")
    (member,) = running_exit.sessions()
    for end, way in ((client, UP), (member, DOWN)):
        lose(end, way)
    assert not running_exit.counted["urgent-legs-asked"]
    down = member.session.legs_of(DOWN)[0]
    member.session._keepalive.send(down, KeepaliveKind.WANTS_LEG, down.number, time.monotonic())
    assert await user.echo(b"seen by nobody") == b"seen by nobody"
    assert len(client.connection.legs()) == 2
    assert not any(name.startswith("urgent-legs-wanted") for name in client.counters.counted)


async def test_a_profile_may_want_no_leg_for_what_is_urgent(running_exit, make_client, echo_server):
    await running_exit.start()
    client = await make_client(road={"urgent_leg": False}).up()
    user = client.open(echo_server.port)
    await user.heard("opened")
    (member,) = running_exit.sessions()
    for end, way in ((client, UP), (member, DOWN)):
        lose(end, way)
    assert await user.echo(b"with two legs") == b"with two legs"
    assert len(client.connection.legs()) == 2
    assert not running_exit.counted["urgent-legs-asked"], "the exit knows"
    assert not any(name.startswith("urgent-legs-wanted") for name in client.counters.counted)
