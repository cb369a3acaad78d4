"""What real traffic leaves in the logs of both ends: nothing at the default level, all of it at debug."""

from __future__ import annotations

import io
import json
import logging

import pytest

from halftunnel_vpn.observe import log_format
from halftunnel_vpn.protocol.keys import encode_key, log_id

SECRET_NAME = "secret-destination.example.org"
SECRET_ADDRESS = b"\xc6\x33\x64\x4d"  # 198.51.100.77, which the exit's policy denies


@pytest.fixture
def log_at():
    """Collects the log of both ends at a level, as JSON."""
    root = logging.getLogger(log_format.ROOT)
    before = root.handlers[:], root.level, root.propagate
    stream = io.StringIO()

    def configure(level):
        log_format.configure(level, "json", stream)
        return stream

    yield configure
    root.handlers[:], root.level, root.propagate = before


async def drive(running_exit, make_client, echo_server, until):
    """A session with streams of every outcome, lost legs, a stranger that is refused, and an end."""
    await running_exit.start()
    client = await make_client("secret-client").up()
    user = client.open(echo_server.port)
    await user.heard("opened")
    assert await user.echo(b"secret-payload" * 1000)
    for refused in (client.open(443, SECRET_NAME), client.open(4433, SECRET_ADDRESS)):
        await refused.until(lambda refused=refused: refused.events)
    client.connection.reconnect()
    await until(lambda: client.counters.counted["legs-joined-upstream"] >= 2)
    assert await user.echo(b"secret-payload" * 1000)
    (member,) = running_exit.sessions("secret-client")
    session_id = member.session.session_id
    stream_ids = {user.stream.stream_id}
    await client.down()
    await until(lambda: not running_exit.sessions("secret-client"))
    return client, session_id, stream_ids


async def test_at_the_default_level_no_destination_name_or_key_is_written(
    running_exit, make_client, echo_server, until, log_at
):
    stream = log_at("info")
    client, session_id, _ = await drive(running_exit, make_client, echo_server, until)
    text = stream.getvalue()
    entries = [json.loads(line) for line in text.splitlines()]
    messages = {entry["message"] for entry in entries}
    assert {"session established", "session opened", "session over"} <= messages
    forbidden = [
        SECRET_NAME, "secret", "198.51.100", f"port {echo_server.port}", session_id.hex(),
        encode_key(client.profile.client.private_key), encode_key(running_exit.keys.private),
        encode_key(running_exit.keys.public),
    ]  # fmt: skip
    assert [word for word in forbidden if word in text] == []
    assert {entry["id"] for entry in entries if "id" in entry} == {log_id(session_id)}


async def test_at_debug_both_ends_tell_of_a_stream_by_the_same_numbers(
    running_exit, make_client, echo_server, until, log_at
):
    stream = log_at("debug")
    _, session_id, stream_ids = await drive(running_exit, make_client, echo_server, until)
    opened: dict[str, set] = {}
    for line in stream.getvalue().splitlines():
        entry = json.loads(line)
        if entry["message"] == "stream opened: tcp":
            opened.setdefault(entry["logger"], set()).add(
                (entry["id"], entry["stream"], entry["destination"])
            )
    at_client, at_exit = (
        opened["halftunnel_vpn.client.stream_log"],
        opened["halftunnel_vpn.server.client_nat"],
    )
    assert at_client == at_exit and len(at_client) == 3
    assert {identity for identity, _, _ in at_client} == {log_id(session_id)}
    assert stream_ids <= {number for _, number, _ in at_client}
    assert {f"{SECRET_NAME} port 443", "198.51.100.77 port 4433"} < {where for _, _, where in at_client}
