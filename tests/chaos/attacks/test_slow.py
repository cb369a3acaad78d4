"""Visitors that say a byte now and then, at every stage before they are a client: none may stay for long."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct

import pytest

from halftunnel_vpn.protocol.keys import Direction

pytestmark = [pytest.mark.root, pytest.mark.alone]

DRIP = 0.1
"""Seconds between two bytes: twenty of them in the handshake timeout of this exit."""

PATIENCE = 60.0
"""Seconds after which a visitor counts as one that stays; its time is up after two."""

UPGRADE = (
    "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def frame(size):
    """The head of a masked binary message."""
    return b"\x82" + struct.pack("!BH", 0x80 | 126, size) + bytes(4)


@pytest.fixture
def come(attacked_exit):
    """Connect, say ``first`` at once, then ``rest`` byte by byte; returns what came back until the end."""

    async def drip(road, stage, first, rest):
        context = None
        if stage != "tls":
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", attacked_exit.ports[road], ssl=context, local_addr=("127.0.0.90", 0)
            )
        except (ConnectionError, ssl.SSLError):
            return b""  # on a busy machine its time is up before it is in TLS
        writer.write(first)

        async def write():
            with contextlib.suppress(ConnectionError):
                for byte in rest:
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(DRIP)

        dripping = asyncio.ensure_future(write())
        received = b""
        with contextlib.suppress(ConnectionError):
            while data := await asyncio.wait_for(reader.read(4096), PATIENCE):
                received += data
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()
        return received

    return drip


async def test_slow_visitors_are_gone_when_their_time_is_up(attacked_exit, honest, come):
    upgrade = {road: UPGRADE.format(path=attacked_exit.paths[road]).encode() for road in Direction}
    long = bytes(1000)
    stages = {
        "tls": (False, b"\x16\x03\x01\x02\x00\x01" + long),
        "silence": (False, b""),
        "head": (False, b"GET / HTTP/1.1\r\nHost: " + b"x" * 1000),
        "upgraded": (True, b""),
        "frame": (True, frame(1000) + long),
        "message": (True, frame(60) + bytes(60) * 20),
    }
    before = await asyncio.to_thread(attacked_exit.dropped)
    visits = [
        come(road, stage, upgrade[road] if first else b"", rest)
        for stage, (first, rest) in stages.items()
        for road in Direction
    ]
    answers = await asyncio.gather(*visits)
    assert all(len(answer) < 2000 for answer in answers)
    after = await asyncio.to_thread(attacked_exit.dropped)
    fresh = {reason: count - before.get(reason, 0) for reason, count in after.items()}
    assert fresh["tls-failed"] >= 2
    ends = ("tls-failed", "request-timeout", "handshake-timeout")
    assert sum(fresh.get(reason, 0) for reason in ends) >= len(visits)
    assert honest.download.end is None and not honest.losses
