"""DNS messages on a byte stream."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halftunnel_vpn.errors import WireError
from halftunnel_vpn.protocol.dns_framing import MAX_MESSAGE, FrameReader, frame, message_length


def test_a_message_is_preceded_by_its_length() -> None:
    assert frame(b"query") == b"\x00\x05query"
    assert message_length(b"\x01\x02") == 0x102
    assert len(frame(bytes(MAX_MESSAGE))) == MAX_MESSAGE + 2
    with pytest.raises(WireError, match="dns-message-too-long"):
        frame(bytes(MAX_MESSAGE + 1))


@given(st.lists(st.binary(max_size=300), max_size=8), st.integers(1, 50))
def test_messages_come_out_whole_and_in_order_whatever_the_pieces(messages: list[bytes], size: int) -> None:
    stream = b"".join(map(frame, messages))
    reader, found = FrameReader(), []
    for start in range(0, len(stream), size):
        reader.feed(stream[start : start + size])
        while (message := reader.take()) is not None:
            found.append(message)
    assert found == messages
    assert len(reader) == 0


def test_a_message_stays_until_it_is_taken() -> None:
    reader = FrameReader()
    reader.feed(b"\x00\x03one\x00\x03two\x00")
    assert (reader.peek(), reader.peek(), len(reader)) == (b"one", b"one", 11)
    assert (reader.take(), reader.take(), reader.take(), len(reader)) == (b"one", b"two", None, 1)
    reader.clear()
    assert len(reader) == 0


def test_a_message_that_is_announced_as_too_long_is_refused_at_once() -> None:
    reader = FrameReader(longest=100)
    reader.feed(b"\x00\x65")
    with pytest.raises(WireError, match="dns-message-too-long"):
        reader.take()
