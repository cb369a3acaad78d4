"""Our one frame, judged by websockets' own parser."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from halftunnel_vpn.transport.frames import MASKS_AT_ONCE, masked_frame, plain_frame


def as_server_reads(data: bytes):
    server = ServerProtocol(state=OPEN)
    server.receive_data(data)
    assert server.parser_exc is None
    return server.events_received()


def as_client_reads(data: bytes):
    client = ClientProtocol(parse_uri("ws://x/"), state=OPEN)
    client.receive_data(data)
    assert client.parser_exc is None
    return client.events_received()


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_both_frames_are_read_as_one_whole_binary_message(size, kind):
    payload = os.urandom(size)
    for frames in (as_server_reads(masked_frame(kind(payload))), as_client_reads(plain_frame(kind(payload)))):
        (frame,) = frames
        assert (frame.opcode, frame.fin, bytes(frame.data)) == (Opcode.BINARY, True, payload)


@given(st.lists(st.binary(max_size=300), max_size=6))
def test_frames_in_a_row_stay_apart(payloads):
    data = b"".join(masked_frame(payload) for payload in payloads)
    assert [bytes(frame.data) for frame in as_server_reads(data)] == payloads


def test_every_frame_has_a_mask_of_its_own():
    count = 2 * MASKS_AT_ONCE + 1
    masks = {masked_frame(b"same")[2:6] for _ in range(count)}
    assert len(masks) >= count - 3  # of 2**32, two may be the same by chance
