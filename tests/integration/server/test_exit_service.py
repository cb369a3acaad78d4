"""An exit answers its clients about itself, over streams as to a destination."""

from __future__ import annotations

import json

import pytest

from halftunnel_vpn.protocol.service_address import (
    ADDRESSES_PORT,
    DOWNLOAD_PORT,
    SERVICE_HOST,
    UPLOAD_PORT,
)
from halftunnel_vpn.protocol.stream_messages import ResetCode
from halftunnel_vpn.server import exit_service

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

MB = 1_000_000


async def test_the_exit_names_its_addresses(in_memory, monkeypatch):
    # This machine's own: to documentation addresses there may be no route.
    monkeypatch.setattr(exit_service, "PUBLIC_ADDRESSES", {"ipv4": "127.0.0.1", "ipv6": "::ffff:0:0:1"})
    tunnel = in_memory()
    user = tunnel.open(SERVICE_HOST, ADDRESSES_PORT)
    await user.heard("finished")
    answer = json.loads(bytes(user.received))
    assert answer["ipv4"] == "127.0.0.1" and set(answer) == {"ipv4", "ipv6"}
    user.stream.finish()
    await tunnel.idle()


async def test_a_download_goes_on_until_the_client_ends_it_and_is_on_its_account(in_memory, counters, until):
    tunnel = in_memory()
    user = tunnel.open(SERVICE_HOST, DOWNLOAD_PORT)
    await user.until(lambda: len(user.received) >= 3 * MB)
    assert not any(user.received)
    user.stream.reset(ResetCode.NORMAL)
    await tunnel.idle()
    await until(lambda: counters.counted.get("exit-services-ended-by-client"))
    assert tunnel.nat.meters.of("laptop").received >= 3 * MB


async def test_an_upload_is_counted_where_it_arrives(in_memory):
    tunnel = in_memory()
    user = tunnel.open(SERVICE_HOST, UPLOAD_PORT)
    left = 2 * MB
    while left:
        await user.until(lambda: user.stream.room)
        piece = bytes(min(left, user.stream.room, 65_000))
        user.stream.send(piece)
        left -= len(piece)
    user.stream.finish()
    await user.heard("finished")
    assert int(user.received) == 2 * MB
    await tunnel.idle()


async def test_no_connection_to_the_exit_itself_lasts(in_memory, counters, monkeypatch, until):
    monkeypatch.setattr(exit_service, "MAX_SECONDS", 0.05)
    tunnel = in_memory()
    user = tunnel.open(SERVICE_HOST, UPLOAD_PORT)
    await user.heard("finished")
    assert counters.dropped["exit-service-timeout"] == 1
    user.stream.finish()
    await tunnel.idle()


async def test_another_port_of_the_exit_itself_is_refused(in_memory):
    tunnel = in_memory()
    user = tunnel.open(SERVICE_HOST, 22)
    await user.heard("refused REFUSED")
    await tunnel.idle()
