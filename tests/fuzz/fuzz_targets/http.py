"""HTTP: the heads that legs and strangers send, and the control service."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from fuzz_targets.script import Script
from halftunnel_vpn.client.supervisor.captive_portal import judge
from halftunnel_vpn.control.control_service import ControlService
from halftunnel_vpn.control.observation_routes import observation_routes
from halftunnel_vpn.errors import PeerError
from halftunnel_vpn.transport.http_head import MAX_HEAD, HeadReader, parse_request, parse_status


async def _no_problems() -> list[str]:
    return []


ROUTES = observation_routes(lambda: ("text/plain", b"x 1\n"), _no_problems)
MAX_ANSWERS = 4096
"""Answers that the shortest requests of one input can cause."""


def http_head(data: bytes) -> None:
    """A head that comes in pieces, read as a request and as a response."""
    script = Script(data)
    reader = HeadReader()
    sent = b""
    with suppress(PeerError):
        while script:
            piece = script.piece()
            sent += piece
            whole = reader.feed(piece)
            if whole is None:
                assert len(sent) <= MAX_HEAD
                reader.check_request_start()
                continue
            head, rest = whole
            assert head + rest == sent and len(head) <= MAX_HEAD
            with suppress(PeerError):
                assert 100 <= parse_status(head) < 600
            judge(head, ("a.example.org", "192.0.2.1"), reason="certificate-not-trusted")
            request = parse_request(head)
            assert request.wants_websocket in (True, False)
            return


class _Writer:
    """What the control service writes to."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.answers = 0

    def write(self, data: bytes) -> None:
        assert data.startswith(b"HTTP/1.1 ")
        self.written += data
        self.answers += 1

    async def drain(self) -> None:
        pass


def control_requests(data: bytes) -> None:
    """Requests to the control service, one behind the other, until the asker hangs up."""

    async def converse() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        writer = _Writer()
        # The conversation itself, without a socket: everything is there before it begins.
        await ControlService(ROUTES)._converse(reader, writer)  # type: ignore[arg-type]
        assert writer.answers <= MAX_ANSWERS
        assert b"HTTP/1.1 500" not in writer.written

    asyncio.run(converse())
