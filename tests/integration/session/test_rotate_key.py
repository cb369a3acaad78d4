"""Another key for a client of a running exit: the old one ends at once, and the new profile connects."""

from __future__ import annotations

import asyncio
import sys

from halftunnel_vpn.config.client import parse_client
from halftunnel_vpn.protocol.keys import KeyPair


async def test_the_old_key_is_refused_and_the_new_profile_connects(
    running_exit, make_client, echo_server, until
):
    await running_exit.start()
    old_keys = running_exit.admit("laptop")
    old = await make_client("laptop", keys=old_keys).up()
    assert await old.open(echo_server.port).echo(b"old") == b"old"
    rotating = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "halftunnel_vpn.cli", "server", "client", "laptop", "rotate-key",
        "--dir", str(running_exit.directory),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    text, problems = await asyncio.wait_for(rotating.communicate(), 60)
    assert rotating.returncode == 0, problems.decode()
    profile = parse_client(text.decode())
    assert profile.client.private_key != old_keys.private
    assert profile.upstream.urls and profile.exit.public_key == running_exit.keys.public

    # Housekeeping of the exit ends the session, and does not let the key in again.
    await until(lambda: not running_exit.sessions("laptop"))
    await until(lambda: running_exit.dropped["handshake-unknown-client"])
    assert old.connection.state != "connected"

    new = await make_client("laptop", keys=KeyPair(profile.client.private_key)).up()
    assert await new.open(echo_server.port).echo(b"new") == b"new"
    assert len(running_exit.sessions("laptop")) == 1, "it is the same client, under the same name"
