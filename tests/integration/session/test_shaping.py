"""Shaping between a real client and a real exit, also when one of them knows nothing of it."""

from __future__ import annotations

import asyncio
import json
import stat

import pytest

from halftunnel_vpn.audit.record_log import read_log
from halftunnel_vpn.audit.verdict import judge
from halftunnel_vpn.client import client_shaping
from halftunnel_vpn.client.legs import connector
from halftunnel_vpn.errors import HostError
from halftunnel_vpn.protocol.shaping_terms import ShapingMode
from halftunnel_vpn.server import gate
from halftunnel_vpn.session.shaping_plan import ShaperState

BODY = bytes(range(256)) * 2000


async def carry(client, port):
    """A request and its answer on one stream."""
    user = client.open(port)
    await user.heard("opened")
    assert await user.echo(BODY[:5000]) == BODY[:5000]
    return user


@pytest.mark.parametrize("mode", ["split", "strong"])
async def test_both_ends_shape_what_was_agreed(running_exit, make_client, echo_server, until, mode):
    await running_exit.start()
    client = await make_client(shaping={"mode": mode}).up()
    await carry(client, echo_server.port)
    session, (member,) = client.connection.session, running_exit.sessions()
    shaper = session.shaper
    assert shaper.writer.slots > 0 and shaper.writer.padding_bytes > 0
    assert (member.session.shaper is not None) == (mode == "strong")
    if mode == "strong":
        assert member.session.shaper.writer.padding_bytes > 0
    await until(lambda: shaper.state is ShaperState.IDLE, seconds=20)
    client.counters.refresh()
    status = client.connection.shaping.status(session, client.driver.clock())
    assert status["mode"] == status["wanted"] == mode and status["sentence"] is None
    assert status["activities"] >= 1 and status["padding_bytes"] > 0 and status["overhead"] > 0
    assert status["bits_per_activity"] == (3.6 if mode == "strong" else 12.6)


@pytest.mark.parametrize("most", ["off", "split"])
async def test_an_exit_grants_no_more_than_it_allows(running_exit, make_client, echo_server, most):
    running_exit.write(shaping={"max": most})
    await running_exit.start()
    client = await make_client(shaping={"mode": "strong"}).up()
    await carry(client, echo_server.port)
    shaping = client.connection.shaping
    assert shaping.mode is ShapingMode[most.upper()]
    assert shaping.sentence.endswith("the exit allows no more.")
    assert running_exit.sessions()[0].session.shaper is None
    assert (client.connection.session.shaper is None) == (most == "off")


async def test_an_exit_has_a_delay_of_its_own(running_exit, make_client, echo_server):
    running_exit.write(shaping={"delay": "0.5s"})
    await running_exit.start()
    client = await make_client(shaping={"mode": "strong"}).up()
    await carry(client, echo_server.port)
    assert running_exit.sessions()[0].session.shaper._parameters.bulk_after == 0.5


@pytest.mark.parametrize("old", ["exit", "client"])
async def test_an_end_of_an_earlier_version_is_sent_no_padding(
    running_exit, make_client, echo_server, monkeypatch, old
):
    if old == "exit":
        monkeypatch.setattr(gate, "TAKES_PADDING", 0)
    else:
        monkeypatch.setattr(connector, "TAKES_PADDING", 0)
        monkeypatch.setattr(client_shaping, "TAKES_PADDING", 0)
    await running_exit.start()
    client = await make_client(shaping={"mode": "strong"}).up()
    await carry(client, echo_server.port)
    assert client.connection.session.shaper is None and running_exit.sessions()[0].session.shaper is None
    client.counters.refresh()
    running_exit.exit.counters.refresh()
    for counted in (client.counters.counted, running_exit.counted):
        assert not any("padding" in name and count for name, count in counted.items())
    if old == "exit":
        assert "update it" in client.connection.shaping.sentence


async def test_off_asks_for_nothing(running_exit, make_client, echo_server):
    await running_exit.start()
    client = await make_client().up()
    await carry(client, echo_server.port)
    assert client.connection.shaping.wish(client.driver.clock()) is None
    assert client.hellos[0].shaping is None and client.connection.session.shaper is None


@pytest.mark.parametrize("mode", ["off", "split", "strong"])
async def test_a_recording_has_every_record_and_nothing_else(
    running_exit, make_client, echo_server, until, tmp_path, mode
):
    await running_exit.start()
    client = await make_client(shaping={"mode": mode}).up()
    session = client.connection.session
    path = client.connection.record(tmp_path, 600.0)
    with pytest.raises(HostError, match="goes on already"):
        client.connection.record(tmp_path, 1.0)
    before = sum(leg.records_sent + leg.records_received for leg in session.legs)
    await carry(client, echo_server.port)
    old_legs = set(session.legs)
    client.connection.reconnect()  # legs that join meanwhile are recorded as well
    await until(lambda: len(session.legs) == 2 and not old_legs & set(session.legs))
    await carry(client, echo_server.port)
    client.connection._leg_recorder.stop()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    head, records = lines[0], lines[1:]
    assert head["halftunnel_audit"] == 1 and head["mode"] == mode
    assert {record["dir"] for record in records} == {"up", "down"}
    assert len({record["leg"] for record in records}) == 4 and len(records) > before
    own = [record for record in records if record["slot"] and record["dir"] == "up"]
    assert bool(own) == (mode != "off")
    assert all(record["pad"] == 0 for record in records) == (mode == "off")
    assert len({record["size"] for record in own}) <= 1
    assert all(record["late"] is None or record["late"] >= 0 for record in records)
    for scored in judge(read_log(path.read_text().splitlines(keepends=True))).broken:
        assert "undeclared" not in scored
    count = len(records)
    await carry(client, echo_server.port)
    await asyncio.sleep(0.1)
    assert len(path.read_text().splitlines()) == count + 1
