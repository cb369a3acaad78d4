"""A question for the exit's resolver, as the client asks it over a stream."""

from __future__ import annotations

import asyncio

import pytest

from halftunnel_vpn.client.dns_forward import DnsForwarder
from halftunnel_vpn.errors import DnsError
from halftunnel_vpn.protocol.stream_messages import StreamKind


@pytest.fixture
async def asked(pair):
    """A question that has arrived: what waits for its answer, and the exit's end of the stream."""
    asking = asyncio.ensure_future(DnsForwarder(pair.client, lambda: pair.now)(b"question"))
    await asyncio.sleep(0)
    pair.settle()
    (exit,) = pair.exit_users.values()
    assert pair.requests[0].kind is StreamKind.DNS
    assert bytes(exit.received) == b"\x00\x08question" and exit.events == ["finished"]
    return asking, exit


async def test_an_answer_may_come_in_pieces(pair, asked):
    asking, exit = asked
    for piece in (b"\x00", b"\x06an", b"swer"):
        exit.stream.send(piece)
        pair.settle()
    exit.stream.finish()
    pair.settle()
    assert await asking == b"answer"
    pair.advance(1.0)
    assert not pair.client.streams and not pair.exit.streams


async def test_an_exit_that_goes_on_after_its_answer_is_told_to_stop(pair, asked):
    asking, exit = asked
    exit.stream.send(b"\x00\x06answer")
    pair.settle()
    exit.stream.send(b"x" * 60_000)
    pair.settle()
    assert await asking == b"answer"
    assert exit.events == ["finished", "aborted PROTOCOL_ERROR"]
    pair.advance(1.0)
    assert not pair.client.streams and not pair.exit.streams


async def test_a_stream_that_ends_without_an_answer_is_none(pair, asked):
    asking, exit = asked
    exit.stream.send(b"\x00\x06ans")
    exit.stream.finish()
    pair.settle()
    with pytest.raises(DnsError, match="PROTOCOL_ERROR"):
        await asking


async def test_whoever_gives_up_takes_the_question_back(pair, asked):
    asking, exit = asked
    asking.cancel()
    await asyncio.wait((asking,))
    pair.settle()
    assert exit.events == ["finished", "aborted TIMED_OUT"]
    pair.advance(1.0)
    assert not pair.client.streams and not pair.exit.streams
