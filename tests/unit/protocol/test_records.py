"""Records: sealed and opened in order, under keys that wear out."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from halftunnel_vpn.errors import RecordError
from halftunnel_vpn.protocol import records
from halftunnel_vpn.protocol.records import Opener, Sealer

KEY = bytes(range(32))


def refused(opener: Opener, record: bytes | bytearray) -> str:
    with pytest.raises(RecordError) as caught:
        opener.open(record)
    return caught.value.reason


@given(st.lists(st.lists(st.binary(max_size=200), max_size=5), max_size=10))
@settings(max_examples=50, deadline=None)
def test_trains_come_back_in_order(trains: list[list[bytes]]) -> None:
    sealer, opener = Sealer(KEY), Opener(KEY)
    for parts in trains:
        assert opener.open(sealer.seal(parts)) == b"".join(parts)
    assert sealer.records == opener.records == len(trains)
    assert sealer.bytes == opener.bytes == sum(len(part) for parts in trains for part in parts)


def test_a_record_is_aes_256_gcm_under_the_counter() -> None:
    sealer = Sealer(KEY)
    for number in range(3):
        record = sealer.seal([b"one ", memoryview(b"train"), bytearray(b"!")])
        nonce = bytes(4) + number.to_bytes(8, "big")
        assert AESGCM(KEY).decrypt(nonce, record, None) == b"one train!"


def test_the_longest_train_fills_the_longest_record() -> None:
    train = bytes(records.MAX_TRAIN)
    record = Sealer(KEY).seal([train])
    assert len(record) == records.MAX_RECORD == 65536
    assert Opener(KEY).open(bytearray(record)) == train
    with pytest.raises(RecordError) as caught:
        Sealer(KEY).seal([train, b"x"])
    assert caught.value.reason == "record-too-long"


def test_every_flipped_bit_and_every_cut_is_refused() -> None:
    record = Sealer(KEY).seal([b"a train of packets"])
    opener = Opener(KEY)
    for bit in range(len(record) * 8):
        flipped = bytearray(record)
        flipped[bit // 8] ^= 1 << bit % 8
        assert refused(opener, flipped) == "record-bad-tag"
    for length in range(len(record)):
        expected = "record-too-short" if length < records.TAG_LENGTH else "record-bad-tag"
        assert refused(opener, record[:length]) == expected
    assert refused(opener, record + b"\0") == "record-bad-tag"
    assert refused(opener, bytes(records.MAX_RECORD + 1)) == "record-too-long"
    assert opener.open(record) == b"a train of packets"


def test_a_record_that_is_repeated_missing_or_of_another_key_does_not_open() -> None:
    sealer, opener = Sealer(KEY), Opener(KEY)
    first, second, third = (sealer.seal([bytes([number])]) for number in range(3))
    opener.open(first)
    assert refused(opener, first) == "record-bad-tag"
    assert refused(opener, third) == "record-bad-tag"
    assert opener.open(second) == b"\x01"
    assert refused(Opener(bytes(32)), first) == "record-bad-tag"


@pytest.mark.parametrize(
    ("attribute", "limit"), [("records", records.RECORD_LIMIT), ("bytes", records.BYTE_LIMIT)]
)
def test_a_key_is_not_used_beyond_its_limits(attribute: str, limit: int) -> None:
    sealer, opener = Sealer(KEY), Opener(KEY)
    for end in (sealer, opener):
        setattr(end, attribute, limit - 1)
    record = sealer.seal([b"the last"])
    opener.open(record)
    with pytest.raises(RecordError) as caught:
        sealer.seal([b"one more"])
    assert caught.value.reason == "record-key-exhausted"
    assert refused(opener, record) == "record-key-exhausted"
