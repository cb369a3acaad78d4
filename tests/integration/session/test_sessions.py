"""Sessions over real TLS WebSockets: they come up, and streams carry data both ways."""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets

import pytest

from halftunnel_vpn.client.connection import MAX_MEMORY
from halftunnel_vpn.observe.metrics import Metrics
from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.protocol.stream_messages import ResetCode

UP, DOWN = Direction.UPSTREAM, Direction.DOWNSTREAM


async def talk(client, echo_server, size=200_000):
    """One stream to the echo server, there and back; leaves nothing open."""
    user = client.open(echo_server.port)
    await user.heard("opened")
    data = secrets.token_bytes(size)
    assert await user.echo(data) == data
    user.stream.finish()
    await user.heard("finished")


@pytest.mark.parametrize("one_port", [False, True], ids=["two listeners", "one listener"])
async def test_a_session_carries_streams_both_ways(running_exit, make_client, echo_server, one_port, until):
    await running_exit.start(one_port=one_port)
    assert len(running_exit.listeners) == (1 if one_port else 2)
    client = await make_client().up()
    (hello,) = client.hellos
    assert (hello.max_streams, hello.idle_timeout) == (16384, 300)
    (member,) = running_exit.sessions()
    assert {leg.direction for leg in member.session.legs} == {UP, DOWN}
    await talk(client, echo_server)
    await until(lambda: not member.session.streams and not client.connection.session.streams)
    assert running_exit.exit.nat.total == 0
    assert not running_exit.dropped and not client.counters.dropped


async def test_many_streams_at_once(running_exit, make_client, echo_server):
    await running_exit.start()
    client = await make_client().up()
    await asyncio.gather(*(talk(client, echo_server, 50_000) for _ in range(100)))
    assert echo_server.connections == 100
    assert not running_exit.dropped


async def test_megabytes_arrive_whole_and_stay_on_their_roads(running_exit, make_client, echo_server):
    await running_exit.start()
    client = await make_client().up()
    user = client.open(echo_server.port)
    await user.heard("opened")
    data = secrets.token_bytes(20_000_000)
    received = await user.echo(data)
    assert hashlib.sha256(received).digest() == hashlib.sha256(data).digest()
    (up,), (down,) = (client.connection.session.legs_of(road) for road in (UP, DOWN))
    assert up.bytes_sent > 20_000_000 and up.bytes_received < 20_000
    assert down.bytes_received > 20_000_000 and down.bytes_sent < 20_000


async def test_what_a_leg_carries_is_counted_while_it_runs(running_exit, make_client, echo_server, until):
    await running_exit.start()
    client = await make_client().up()
    ends = {"client": client.counters, "exit": running_exit.exit.counters}
    metrics = Metrics("1")
    for component, counters in ends.items():
        metrics.add_counters(component, counters)
    await talk(client, echo_server, 300_000)
    first, text = metrics.render()[1].decode(), metrics.render()[1].decode()
    for path in ("upstream", "downstream"):
        for way in ("sent", "received"):
            name = re.escape(f'halftunnel_bytes_total{{direction="{way}",path="{path}"}}')
            counted, again = (float(re.search(rf"^{name} (\S+)$", read, re.M)[1]) for read in (first, text))
            assert 300_000 < counted <= again < 400_000, f"{path} {way}"  # of both ends together
        assert float(re.search(rf'^halftunnel_packets_sent_total{{path="{path}"}} (\S+)$', text, re.M)[1]) > 5
    assert "upstream-bytes-sent" not in text, "a quantity is no event"
    latency = re.search(r'^halftunnel_stream_latency_seconds_count{kind="tcp"} (\S+)$', text, re.M)
    assert float(latency[1]) == 2, "the client and the exit have each seen one first byte"
    assert len(client.legs(UP)) == 1, "no leg has ended"
    counted = ends["exit"].counted
    (state,) = running_exit.sessions()[0].session.legs_of(DOWN)
    await client.down()
    await until(lambda: counted["legs-lost-downstream"])
    assert counted["downstream-bytes-sent"] == state.bytes_sent, "counted once"


async def test_a_destination_that_is_not_there_is_told(running_exit, make_client, free_port):
    await running_exit.start()
    client = await make_client().up()
    user = client.open(free_port())
    await user.heard("refused REFUSED")


@pytest.mark.parametrize("host", [b"\x0a\0\0\1", b"\xa9\xfe\xa9\xfe", b"\xfe\x80" + bytes(13) + b"\1"])
async def test_a_destination_that_is_denied_is_told(running_exit, make_client, host):
    await running_exit.start()
    client = await make_client().up()
    user = client.open(80, host)
    await user.heard("refused DENIED")
    assert running_exit.dropped == {"egress-denied": 1}


async def test_several_legs_in_each_direction_share_the_work(running_exit, make_client, echo_server, until):
    await running_exit.start()
    client = await make_client(connections=3).up()
    await until(lambda: len(client.legs(UP)) == len(client.legs(DOWN)) == 3)
    (member,) = running_exit.sessions()
    assert len(member.session.legs) == 6
    await asyncio.gather(*(talk(client, echo_server, 2_000_000) for _ in range(4)))
    for road in (UP, DOWN):
        legs = client.connection.session.legs_of(road)
        carried = [leg.bytes_sent + leg.bytes_received for leg in legs]
        assert min(carried) > 100_000, carried
    assert not running_exit.dropped


async def test_two_clients_do_not_see_each_other(running_exit, make_client, echo_server):
    await running_exit.start()
    laptop, phone = await make_client("laptop").up(), await make_client("phone").up()
    await asyncio.gather(talk(laptop, echo_server), talk(phone, echo_server))
    assert len(running_exit.sessions("laptop")) == len(running_exit.sessions("phone")) == 1
    await phone.down()
    await talk(laptop, echo_server)
    assert laptop.losses == 0


async def test_a_goodbye_ends_the_session_at_the_exit_at_once(running_exit, make_client, echo_server, until):
    await running_exit.start()
    client = await make_client().up()
    user = client.open(echo_server.port)
    await user.heard("opened")
    await client.down()
    assert user.events[-1] == "aborted SHUTDOWN"
    await until(lambda: not running_exit.sessions() and not echo_server.open)
    assert running_exit.counted["sessions-ended-by-peer"] == 1
    assert running_exit.exit.nat.total == 0 and not running_exit.dropped


@pytest.mark.parametrize("memory", [None, "64MiB"])
async def test_the_client_has_one_budget_for_all_its_sessions(
    running_exit, make_client, echo_server, until, memory
):
    await running_exit.start()
    client = await make_client(limits={"memory": memory} if memory else {}).up()
    budget = client.connection.memory
    assert budget.limit == 64 * 2**20 if memory else 0 < budget.limit <= MAX_MEMORY
    first = client.connection.session
    user = client.open(echo_server.port)
    await user.heard("opened")
    assert await user.echo(bytes(300_000)) == bytes(300_000)
    assert first.limits.memory is budget and budget.used > 0
    running_exit.sessions()[0].close(ResetCode.SHUTDOWN)
    await until(lambda: client.connection.session not in (None, first))
    assert client.connection.session.limits.memory is budget
    await until(lambda: budget.used == 0)
