"""Streams whose SYN to the destination has a hop limit, with exits that know it and exits that do not."""

from __future__ import annotations

import pytest

from halftunnel_vpn.protocol.stream_messages import OpenRequest, StreamKind
from halftunnel_vpn.server import gate


@pytest.mark.parametrize("known", [True, False])
async def test_an_exit_of_an_earlier_version_is_told_of_no_hop_limit(
    running_exit, make_client, echo_server, monkeypatch, known
):
    if not known:
        monkeypatch.setattr(gate, "TAKES_HOP_LIMITS", 0)
    asked = []
    decode = OpenRequest.decode
    monkeypatch.setattr(OpenRequest, "decode", lambda payload: asked.append(decode(payload)) or asked[-1])
    await running_exit.start()
    client = await make_client().up()
    user = client.open(echo_server.port)
    await user.heard("opened")
    request = OpenRequest(StreamKind.TCP, b"\x7f\0\0\1", echo_server.port, 0, 3)
    limited = type(user)()
    limited.stream = client.connection.open_stream(request, limited, client.driver.clock())
    await limited.heard("opened")
    assert await limited.echo(b"hello") == b"hello"
    assert [request.hop_limit for request in asked] == [0, 3 if known else 0]
