"""Frames cut into pieces at any place: a leg tells the same story as websockets' own parser."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from halftunnel_vpn.errors import IllegalTransition
from halftunnel_vpn.transport.leg import Leg
from halftunnel_vpn.transport.leg_phase import LegPhase
from halftunnel_vpn.transport.receive_buffer import RECEIVE_BUFFER


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self):
        super().__init__()
        self.written = bytearray()
        self.closed = False

    def write(self, data):
        self.written += data

    def set_protocol(self, protocol): ...

    def set_write_buffer_limits(self, high=None, low=None): ...

    def get_write_buffer_size(self):
        return 0

    def can_write_eof(self):
        return False

    def close(self):
        self.closed = True

    def abort(self):
        self.closed = True


class Story:
    """What a leg's owner was told."""

    def __init__(self):
        self.told = []

    def leg_opened(self, leg): ...

    def record_received(self, leg, record):
        self.told.append(bytes(record))

    def leg_writable(self, leg): ...

    def leg_closed(self, leg, reason):
        self.told.append(reason)


def protocols(is_client):
    """The leg's own protocol and that of its peer."""
    client = ClientProtocol(parse_uri("ws://x/"), state=OPEN, max_size=65_536)
    server = ServerProtocol(state=OPEN, max_size=65_536)
    return (client, server) if is_client else (server, client)


def write(peer, step):
    """Let the peer make the frames of one step; returns what the leg's owner must be told of them."""
    kind, data = step
    if kind == "message":
        peer.send_binary(data)
        return [data]
    if kind == "fragments":
        peer.send_binary(data[:5], fin=False)
        peer.send_ping(b"between")
        peer.send_continuation(data[5:], fin=True)
        return [data]
    if kind == "ping":
        peer.send_ping(data[:125])
        return []
    peer.send_pong(data[:125])
    return []


steps = st.lists(
    st.tuples(
        st.sampled_from(["message", "message", "fragments", "ping", "pong"]),
        st.one_of(st.binary(max_size=200), st.sampled_from([bytes(300), b"\x82" * 70, bytes(65_536)])),
    ),
    max_size=8,
)


def play(is_client, script, cut, *, closing=True):
    """Play a peer's script to a leg in pieces; returns what was told and expected, the wire, and the peer."""
    own, peer = protocols(is_client)
    expected = [told for step in script for told in write(peer, step)]
    if closing:
        peer.send_close(4001, "bye")
        expected.append("peer-closed-4001")
    data = b"".join(peer.data_to_send())
    wire, story = Wire(), Story()

    async def run():
        leg = Leg(own, wire, peer="test", clock=lambda: 0.0)
        leg.open(story)
        for begin in range(0, len(data), cut):
            piece = data[begin : begin + cut]
            leg.get_buffer(-1)[: len(piece)] = piece
            leg.buffer_updated(len(piece))
        leg.connection_lost(None)
        assert leg.state is LegPhase.GONE

    asyncio.run(run())
    return story.told, expected, wire, peer


@settings(max_examples=60, deadline=None)
@given(script=steps, cut=st.sampled_from([1000, 97, 65_537, 16_384]), is_client=st.booleans())
def test_any_script_in_any_pieces(script, cut, is_client):
    told, expected, _, _ = play(is_client, script, cut)
    assert told == expected


@pytest.mark.parametrize("is_client", [True, False])
def test_single_bytes(is_client):
    script = [("message", b"a" * 130), ("fragments", b"fragmented"), ("ping", b"p"), ("message", b"")]
    told, expected, wire, peer = play(is_client, script, 1)
    assert told == expected
    peer.receive_data(bytes(wire.written))
    answers = peer.events_received()
    assert [frame.opcode.name for frame in answers] == ["PONG", "PONG", "CLOSE"]


@pytest.mark.parametrize("is_client", [True, False])
def test_more_than_the_buffer_holds_in_one_piece_with_the_upgrade(is_client):
    own, peer = protocols(is_client)
    records = [bytes([number]) * 65_536 for number in range(20)]
    for record in records:
        peer.send_binary(record)
    data = b"".join(peer.data_to_send())
    assert len(data) > 2 * RECEIVE_BUFFER
    story = Story()

    async def run():
        leg = Leg(own, Wire(), peer="test", clock=lambda: 0.0)
        leg.open(story, data)
        leg.connection_lost(None)

    asyncio.run(run())
    assert story.told == [*records, "connection-lost"]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_no_bytes_raise_anything(data, is_client):
    own, _ = protocols(is_client)
    story = Story()

    async def run():
        leg = Leg(own, Wire(), peer="test", clock=lambda: 0.0)
        leg.open(story, data)
        leg.connection_lost(None)

    asyncio.run(run())
    causes = [told for told in story.told if isinstance(told, str)]
    assert len(causes) == 1
    assert story.told[-1] == causes[0]


def test_two_legs_that_share_the_buffer_do_not_mix_their_bytes():
    async def run():
        stories, legs, streams = [], [], []
        for number in range(2):
            own, peer = protocols(is_client=True)
            peer.send_binary(bytes([number]) * 1000)
            peer.send_binary(bytes([number + 10]) * 1000)
            streams.append(b"".join(peer.data_to_send()))
            stories.append(Story())
            legs.append(Leg(own, Wire(), peer="test", clock=lambda: 0.0))
            legs[-1].open(stories[-1])
        for begin in range(0, len(streams[0]), 100):
            for leg, stream in zip(legs, streams, strict=True):
                piece = stream[begin : begin + 100]
                leg.get_buffer(-1)[: len(piece)] = piece
                leg.buffer_updated(len(piece))
        for leg in legs:
            leg.abort()
            leg.connection_lost(None)
        return [story.told for story in stories]

    assert asyncio.run(run()) == [
        [bytes(1000), bytes([10]) * 1000, "aborted"],
        [bytes([1]) * 1000, bytes([11]) * 1000, "aborted"],
    ]


def test_a_leg_never_goes_back():
    async def run():
        leg = Leg(protocols(is_client=True)[0], Wire(), peer="test", clock=lambda: 0.0)
        leg.open(Story())
        leg.connection_lost(None)
        with pytest.raises(IllegalTransition):
            leg.connection_lost(None)

    asyncio.run(run())
