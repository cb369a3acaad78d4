"""Packets: one alone, many in a train, and with an HMAC."""

from __future__ import annotations

import hashlib
import hmac
import struct
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halftunnel_vpn.errors import WireError
from halftunnel_vpn.protocol import wire
from halftunnel_vpn.protocol.wire import Packet, PacketType

SESSION = bytes.fromhex("0102030405064708890a0b0c0d0e0f10")
IN_TRAINS = [kind for kind in PacketType if kind not in (PacketType.HANDSHAKE, PacketType.RECONNECT)]
KEY = b"k" * 32

numbers = st.integers(0, 2**32 - 1)


def packets(kinds: list[PacketType]) -> st.SearchStrategy[Packet]:
    payloads = st.binary(max_size=60).map(memoryview)
    return st.builds(Packet, st.sampled_from(kinds), st.just(SESSION), numbers, numbers, numbers, payloads)


def encoded(packet: Packet) -> bytes:
    return wire.encode_header(*packet[:5], len(packet.payload)) + packet.payload


def refused(reason: str, data: bytes, session_id: bytes = SESSION) -> None:
    with pytest.raises(WireError) as caught:
        wire.iter_train(data, session_id)
    assert caught.value.reason == reason


def test_the_header_stands_as_the_founding_document_lays_it_down() -> None:
    header = wire.encode_header(PacketType.FIN, SESSION, 0x11223344, 0x55667788, 0x99AABBCC, 0xDDEE)
    assert header.hex() == "48540103" + SESSION.hex() + "112233445566778899aabbccddee"
    assert len(header) == wire.HEADER_LENGTH == wire.HEADER.size == 34


@given(packets(list(PacketType)))
@settings(max_examples=100, deadline=None)
def test_one_packet_comes_back_as_it_was(packet: Packet) -> None:
    assert wire.decode(encoded(packet)) == packet


@given(st.lists(packets(IN_TRAINS), min_size=1, max_size=20))
@settings(max_examples=100, deadline=None)
def test_a_train_comes_back_in_order(train: list[Packet]) -> None:
    data = b"".join(map(encoded, train))
    for view in (data, bytearray(data), memoryview(data)):
        assert wire.iter_train(view, SESSION) == train


def test_a_large_payload_points_into_its_train_and_a_small_one_does_not_keep_it_in_memory() -> None:
    lengths = wire.SMALL_PAYLOAD, wire.SMALL_PAYLOAD - 1
    headers = [wire.encode_header(PacketType.DATA, SESSION, 1, 0, 0, length) for length in lengths]
    train = b"".join(header + bytes(length) for header, length in zip(headers, lengths, strict=True))
    large, small = wire.iter_train(train, SESSION)
    assert large.payload.obj is train
    assert small.payload.obj is not train
    assert len(small.payload.obj) == len(small.payload) == wire.SMALL_PAYLOAD - 1
    assert isinstance(large, Packet)
    assert isinstance(large.type, PacketType)


def test_the_longest_payload_is_carried() -> None:
    packet = Packet(PacketType.DATA, SESSION, 1, 2, 3, memoryview(bytes(0xFFFF)))
    assert wire.decode(encoded(packet)) == packet


@given(st.lists(packets(IN_TRAINS), min_size=1, max_size=4), st.data())
@settings(max_examples=100, deadline=None)
def test_a_train_cut_anywhere_but_between_packets_is_refused(
    train: list[Packet], data: st.DataObject
) -> None:
    whole = b"".join(map(encoded, train))
    cut = data.draw(st.integers(0, len(whole) - 1))
    ends = {len(b"".join(map(encoded, train[:count]))) for count in range(1, len(train))}
    if cut in ends:
        assert b"".join(map(encoded, wire.iter_train(whole[:cut], SESSION))) == whole[:cut]
    else:
        refused("wire-truncated", whole[:cut])


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_noise_raises_nothing_but_a_wire_error(noise: bytes) -> None:
    for data in (noise, wire.encode_header(1, SESSION, 1, 1, 1, 5)[:30] + noise):
        for decode, *arguments in (
            (wire.iter_train, SESSION),
            (wire.decode,),
            (wire.decode_authenticated, KEY),
            (wire.peek,),
        ):
            try:
                decode(data, *arguments)
            except WireError as error:
                assert error.reason.startswith("wire-")


def test_a_bit_flipped_in_a_header_is_refused_or_seen() -> None:
    packet = Packet(PacketType.DATA, SESSION, 7, 8, 9, memoryview(b"payload"))
    original = encoded(packet)
    for bit in range(wire.HEADER_LENGTH * 8):
        flipped = bytearray(original)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            assert wire.iter_train(flipped, SESSION) != [packet]
        except WireError:
            continue
        assert bit // 8 == 3 or 20 <= bit // 8 < 32  # another type, stream, sequence or acknowledgement


@pytest.mark.parametrize(
    ("reason", "offset", "value"),
    [
        ("wire-bad-magic", 0, 0x47),
        ("wire-bad-magic", 1, 0),
        ("wire-bad-version", 2, 0),
        ("wire-bad-version", 2, 2),
        ("wire-bad-flags", 3, 0x00),
        ("wire-bad-flags", 3, 0x0A),
        ("wire-bad-flags", 3, 0x11),
        ("wire-bad-flags", 3, 0x81),
        ("wire-unexpected-type", 3, PacketType.HANDSHAKE),
        ("wire-unexpected-type", 3, PacketType.RECONNECT),
        ("wire-wrong-session", 4, 0xFF),
        ("wire-wrong-session", 19, 0xFF),
        ("wire-truncated", 33, 99),
    ],
)
def test_each_field_is_refused_by_its_own_reason(reason: str, offset: int, value: int) -> None:
    good = wire.encode_header(PacketType.DATA, SESSION, 1, 1, 1, 2) + b"ok"
    bad = bytearray(good)
    bad[offset] = value
    refused(reason, bytes(bad))
    refused(reason, good + bytes(bad))


def test_an_empty_train_is_refused() -> None:
    refused("wire-truncated", b"")


def test_decode_takes_exactly_one_packet() -> None:
    good = wire.encode_header(PacketType.DATA, SESSION, 1, 1, 1, 2) + b"ok"
    for data, reason in [
        (good + b"x", "wire-trailing-bytes"),
        (good[:-1], "wire-truncated"),
        (good[:33], "wire-truncated"),
        (b"GET / HTTP/1.1\r\nHost: an-example.test\r\n\r\n", "wire-bad-magic"),
        (good[:3] + b"\x81" + good[4:], "wire-bad-flags"),
    ]:
        with pytest.raises(WireError) as caught:
            wire.decode(data)
        assert caught.value.reason == reason


@given(packets(list(PacketType)))
@settings(max_examples=100, deadline=None)
def test_an_authenticated_packet_comes_back(packet: Packet) -> None:
    data = wire.encode_authenticated(*packet, KEY)
    assert wire.decode_authenticated(data, KEY) == packet


def test_the_hmac_covers_the_packet_as_hashlib_computes_it() -> None:
    data = wire.encode_authenticated(PacketType.RECONNECT, SESSION, 0, 0, 0, b"nonce", KEY)
    assert data[3] == PacketType.RECONNECT | wire.FLAG_HMAC
    assert data[-32:] == hmac.new(KEY, data[:-32], hashlib.sha256).digest()
    assert struct.unpack(">H", data[32:34]) == (5,)


def test_every_flipped_bit_and_every_cut_of_an_authenticated_packet_is_refused() -> None:
    data = wire.encode_authenticated(PacketType.RECONNECT, SESSION, 1, 2, 3, b"nonce", KEY)
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(WireError):
            wire.decode_authenticated(flipped, KEY)
    for length in range(len(data)):
        with pytest.raises(WireError):
            wire.decode_authenticated(data[:length], KEY)
    with pytest.raises(WireError) as caught:
        wire.decode_authenticated(data, b"another key of thirty-two bytes.")
    assert caught.value.reason == "wire-bad-mac"


def test_peek_reads_a_first_message_without_a_key() -> None:
    plain = wire.encode_header(PacketType.HANDSHAKE, SESSION, 0, 0, 0, 5) + b"noise"
    authenticated = wire.encode_authenticated(PacketType.RECONNECT, SESSION, 0, 0, 0, b"nonce", KEY)
    assert wire.peek(plain).type is PacketType.HANDSHAKE
    assert wire.peek(authenticated).session_id == SESSION
    assert wire.peek(authenticated).payload == b"nonce"


def test_peek_refuses_what_opens_no_leg() -> None:
    for data, reason in [
        (wire.encode_header(PacketType.DATA, SESSION, 1, 1, 1, 0), "wire-unexpected-type"),
        (wire.encode_authenticated(PacketType.DATA, SESSION, 1, 1, 1, b"", KEY), "wire-unexpected-type"),
        (bytes(wire.MAX_FIRST_MESSAGE + 1), "wire-too-long"),
        (b"", "wire-truncated"),
        (b"HT\x01", "wire-truncated"),
    ]:
        with pytest.raises(WireError) as caught:
            wire.peek(data)
        assert caught.value.reason == reason


@given(st.binary(min_size=16, max_size=16))
@settings(max_examples=50, deadline=None)
def test_any_sixteen_bytes_become_a_uuid4(raw: bytes) -> None:
    made = uuid.UUID(bytes=wire.as_uuid4(raw))
    assert made.version == 4
    assert made.variant == uuid.RFC_4122
    assert wire.as_uuid4(made.bytes) == made.bytes
    assert made == uuid.UUID(bytes=raw, version=4)
