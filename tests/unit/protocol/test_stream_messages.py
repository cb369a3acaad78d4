"""Payloads of OPEN, RESET, ACK and KEEPALIVE."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from halftunnel_vpn.errors import WireError
from halftunnel_vpn.protocol import stream_messages
from halftunnel_vpn.protocol.stream_messages import (
    MAX_HOP_LIMIT,
    Keepalive,
    KeepaliveKind,
    OpenReply,
    OpenRequest,
    ResetCode,
    StreamKind,
    decode_offender,
    decode_reset,
    encode_reset,
)

u16 = st.integers(0, 2**16 - 1)
u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
addresses = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)
labels = st.from_regex(r"[a-z0-9_-]{0,20}[a-z]", fullmatch=True)
names = st.lists(labels, min_size=1, max_size=8).map(".".join)


def reason_of(attempt: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(WireError) as caught:
        attempt(*arguments)
    return caught.value.reason


@given(addresses | names, st.integers(1, 65535), u32)
@settings(max_examples=100, deadline=None)
def test_a_tcp_open_comes_back(host: bytes | str, port: int, window: int) -> None:
    request = OpenRequest(StreamKind.TCP, host, port, window)
    assert OpenRequest.decode(memoryview(request.encode())) == request


@given(st.sampled_from([StreamKind.UDP, StreamKind.ICMP, StreamKind.DNS]), st.just(b"") | addresses, u16, u32)
@settings(max_examples=50, deadline=None)
def test_other_opens_need_no_destination(kind: StreamKind, host: bytes, port: int, window: int) -> None:
    request = OpenRequest(kind, host, port, window)
    assert OpenRequest.decode(request.encode()) == request


def test_an_open_stands_as_the_specification_says() -> None:
    by_address = OpenRequest(StreamKind.TCP, bytes([192, 0, 2, 7]), 443, 0x10000)
    assert by_address.encode().hex(" ", 1) == "01 04 01 bb 00 01 00 00 c0 00 02 07"
    by_name = OpenRequest(StreamKind.TCP, "ab.example", 80, 1)
    assert by_name.encode() == b"\x01\x03\x00\x50\x00\x00\x00\x01\x0aab.example"


def test_every_cut_of_an_open_is_refused_and_so_is_a_byte_too_many() -> None:
    for host in (bytes(4), bytes(15) + b"\1", "www.example"):
        whole = OpenRequest(StreamKind.TCP, host, 80, 9).encode()
        for length in range(len(whole)):
            assert reason_of(OpenRequest.decode, whole[:length]) == "open-truncated"
        assert reason_of(OpenRequest.decode, whole + b"x") == "open-trailing-bytes"


def test_an_open_with_a_bad_field_is_refused() -> None:
    good = OpenRequest(StreamKind.TCP, bytes(4), 80, 9).encode()
    assert reason_of(OpenRequest.decode, b"\x00" + good[1:]) == "open-bad-kind"
    assert reason_of(OpenRequest.decode, b"\x05" + good[1:]) == "open-bad-kind"
    assert reason_of(OpenRequest.decode, good[:1] + b"\x05" + good[2:]) == "open-bad-family"
    assert reason_of(OpenRequest.decode, good[:1] + b"\x00" + good[2:8]) == "open-no-destination"
    assert reason_of(OpenRequest.decode, good[:2] + b"\0\0" + good[4:]) == "open-no-destination"
    assert reason_of(OpenRequest(StreamKind.TCP, b"", 80, 9).encode) == "open-no-destination"
    assert reason_of(OpenRequest(StreamKind.TCP, bytes(5), 80, 9).encode) == "open-bad-address"


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "a..b",
        ".a",
        "a.",
        "a b",
        "a/b",
        "a\0b",
        "b\u00fccher.example",
        "a" * 64,
        "a." * 127,
        "127.1",
        "2130706433",
        "0x7f.1",
        "a.0X7F",
        "a.0x",
        "name\n",
    ],
)
def test_what_is_no_name_is_refused_both_ways(name: str) -> None:
    assert reason_of(OpenRequest(StreamKind.TCP, name, 80, 9).encode) == "open-bad-name"
    raw = name.encode("latin-1")
    payload = b"\x01\x03\x00\x50\x00\x00\x00\x01" + bytes([len(raw)]) + raw
    assert reason_of(OpenRequest.decode, payload) == "open-bad-name"


@pytest.mark.parametrize("name", ["a", "A.Example", "xn--bcher-kva.example", "_dns.x-y.z9", "1.2.3.4a"])
def test_what_is_a_name_is_carried(name: str) -> None:
    request = OpenRequest(StreamKind.TCP, name, 80, 9)
    assert OpenRequest.decode(request.encode()) == request


def test_the_longest_name_is_carried() -> None:
    name = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])
    assert len(name) == 253
    request = OpenRequest(StreamKind.TCP, name, 80, 9)
    assert OpenRequest.decode(request.encode()) == request
    assert reason_of(OpenRequest(StreamKind.TCP, name + "d", 80, 9).encode) == "open-bad-name"


@given(u32, st.just(b"") | addresses, u16)
@settings(max_examples=100, deadline=None)
def test_an_open_reply_comes_back(window: int, address: bytes, port: int) -> None:
    reply = OpenReply(window, address, port)
    assert OpenReply.decode(memoryview(reply.encode())) == reply


def test_a_bad_open_reply_is_refused() -> None:
    good = OpenReply(5, bytes(4), 6).encode()
    assert good.hex(" ", 1) == "00 00 00 05 00 06 04 00 00 00 00"
    for length in range(len(good)):
        assert reason_of(OpenReply.decode, good[:length]) == "open-truncated"
    assert reason_of(OpenReply.decode, good + b"x") == "open-trailing-bytes"
    assert reason_of(OpenReply.decode, good[:6] + b"\x03\x01a") == "open-bad-family"
    assert reason_of(OpenReply.decode, good[:6] + b"\x09aaaa") == "open-bad-family"
    assert reason_of(OpenReply(5, b"abc", 6).encode) == "open-bad-address"


@given(st.sampled_from(KeepaliveKind), u32, u64, u64, st.integers(0, 65535), st.binary(max_size=50))
@settings(max_examples=50, deadline=None)
def test_a_keepalive_comes_back_without_its_padding(
    kind: KeepaliveKind, id: int, sent_us: int, records_received: int, tenths: int, padding: bytes
) -> None:
    keepalive = Keepalive(kind, id, sent_us, records_received, tenths / 10)
    payload = keepalive.encode(padding)
    assert len(payload) == stream_messages.KEEPALIVE_LENGTH + len(padding)
    assert Keepalive.decode(memoryview(payload)) == keepalive


def test_a_bad_keepalive_is_refused() -> None:
    good = Keepalive(KeepaliveKind.PING, 1, 2, 3).encode()
    for length in range(len(good)):
        assert reason_of(Keepalive.decode, good[:length]) == "keepalive-truncated"
    assert reason_of(Keepalive.decode, b"\x06" + good[1:]) == "keepalive-bad-kind"


@given(u64)
@settings(max_examples=50, deadline=None)
def test_credit_comes_back(limit: int) -> None:
    assert stream_messages.decode_credit(stream_messages.encode_credit(limit)) == limit


def test_credit_is_eight_bytes() -> None:
    assert stream_messages.encode_credit(1 << 40).hex() == "0000010000000000"
    assert reason_of(stream_messages.decode_credit, bytes(7)) == "ack-bad-length"
    assert reason_of(stream_messages.decode_credit, bytes(9)) == "ack-bad-length"


@pytest.mark.parametrize("code", ResetCode)
def test_reset_codes_come_back(code: ResetCode) -> None:
    assert stream_messages.decode_reset(memoryview(stream_messages.encode_reset(code))) is code


def test_a_reset_of_a_later_version_still_resets() -> None:
    assert stream_messages.decode_reset(b"\xee") is ResetCode.CONNECTION_RESET
    assert reason_of(stream_messages.decode_reset, b"") == "reset-bad-length"
    assert reason_of(stream_messages.decode_reset, b"\0\0") == "reset-bad-length"


@given(st.binary(max_size=40))
@example(b"\x01\x03\x00\x50\x00\x00\x00\x01")
@settings(max_examples=300, deadline=None)
def test_noise_raises_nothing_but_a_wire_error(noise: bytes) -> None:
    decoders: list[Callable[[bytes], object]] = [
        OpenRequest.decode,
        OpenReply.decode,
        Keepalive.decode,
        stream_messages.decode_credit,
        stream_messages.decode_reset,
    ]
    for decode in decoders:
        try:
            decode(noise)
        except WireError as error:
            assert error.reason.split("-")[0] in ("open", "keepalive", "ack", "reset")


@pytest.mark.parametrize("hop_limit", [1, MAX_HOP_LIMIT])
def test_a_hop_limit_travels_with_the_open_of_a_tcp_stream(hop_limit: int) -> None:
    request = OpenRequest(StreamKind.TCP, "www.example", 80, 7, hop_limit)
    assert OpenRequest.decode(request.encode()) == request


@pytest.mark.parametrize(
    ("kind", "tail"),
    [(StreamKind.TCP, b"\0"), (StreamKind.TCP, b"\x21"), (StreamKind.TCP, b"\1\1"), (StreamKind.UDP, b"\1")],
)
def test_what_is_no_hop_limit_is_refused(kind: StreamKind, tail: bytes) -> None:
    whole = OpenRequest(kind, bytes(4), 80, 7).encode()
    assert reason_of(OpenRequest.decode, whole + tail) == "open-trailing-bytes"


@pytest.mark.parametrize("offender", [b"", bytes(4), bytes(16)])
def test_a_reset_names_the_router(offender: bytes) -> None:
    payload = encode_reset(ResetCode.HOP_LIMIT_EXCEEDED, offender)
    assert decode_reset(payload) is ResetCode.HOP_LIMIT_EXCEEDED
    assert decode_offender(payload) == offender
    for wrong in (payload + b"x", b"\x0a" + bytes(4)):
        assert reason_of(decode_reset, wrong) == "reset-bad-length"
