"""`htvpn check` reads what an exit answers about itself. An exit may answer anything."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from halftunnel_vpn.client.diagnosis import exit_check


@pytest.fixture
def answering(monkeypatch):
    """Let every port of the exit's own address be answered by a server of loopback."""

    @contextlib.asynccontextmanager
    async def answer(content: bytes):
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if content.startswith(b"{") or content.startswith(b"["):
                writer.write(content)
            else:
                while await reader.read(65536):
                    pass
                writer.write(content)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        monkeypatch.setattr(exit_check, "SERVICE_ADDRESS", "127.0.0.1")
        for name in ("ADDRESSES_PORT", "UPLOAD_PORT"):
            monkeypatch.setattr(exit_check, name, server.sockets[0].getsockname()[1])
        monkeypatch.setattr(exit_check, "MEASURED", 0.05)
        async with server:
            yield

    return answer


@pytest.mark.parametrize(
    "content",
    [b"[" * 4096, b"[]", b"{", b'{"ipv4": "\x1b[2J"}', b'{"ipv4": [1]}', b"{" + b" " * 9000],
    ids=["deep", "a list", "half", "no address", "a list inside", "long"],
)
async def test_addresses_that_make_no_sense_are_a_line(answering, content):
    async with answering(content):
        [found] = await exit_check.check_addresses()
    assert "not known" in found.text and found.text.isprintable()


@pytest.mark.parametrize("content", [b"9" * 4000, b"-1", b"inf", b"\x1b[2J", b"", b"9" * 9000])
async def test_a_count_that_makes_no_sense_is_a_line(answering, content):
    async with answering(content):
        with pytest.raises(ValueError, match=r"than was sent|invalid literal|too long"):
            await exit_check._upload()
