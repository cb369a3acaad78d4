"""Records: a WebSocket message is a train of packets, sealed with AES-256-GCM (docs/PROTOCOL.md, "Records").

Every leg has one key for each way. The nonce is four zero bytes and a 64-bit counter that both ends keep and
that never travels: a record that is missing, repeated or out of place does not open.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from halftunnel_vpn.errors import RecordError
from halftunnel_vpn.protocol.wire import HEADER_LENGTH, Buffer

KEY_LENGTH: Final = 32
"""Bytes of a record key."""

TAG_LENGTH: Final = 16
"""Bytes that sealing adds."""

MAX_RECORD: Final = 65536
"""Bytes of the longest record: the whole WebSocket message."""

MAX_TRAIN: Final = MAX_RECORD - TAG_LENGTH
"""Bytes of the longest train that one record holds."""

MAX_TRAIN_PAYLOAD: Final = MAX_TRAIN - HEADER_LENGTH
"""Bytes of payload of a packet that fills a record alone."""

RECORD_LIMIT: Final = 1 << 30
"""Records under one key; the counter of the nonce has room for 2**64."""

BYTE_LIMIT: Final = 1 << 38
"""Bytes under one key, 256 GiB: less than the 2**24.5 records of 16 KiB of RFC 8446 section 5.5."""

_pack_nonce: Final = struct.Struct(">IQ").pack


class Sealer:
    """Seals the trains of one way of one leg, in order. ``key`` is 32 bytes and used by nothing else."""

    __slots__ = ("_encrypt", "bytes", "records")

    def __init__(self, key: bytes) -> None:
        self._encrypt = AESGCM(key).encrypt
        self.records = 0
        """Records sealed so far; the next one's nonce."""
        self.bytes = 0
        """Bytes of all trains sealed so far."""

    def seal(self, parts: Sequence[Buffer]) -> bytes:
        """Return the record of the train that ``parts`` make in a row.

        Raises RecordError: record-too-long (over MAX_TRAIN), record-key-exhausted (the leg must be replaced).
        """
        train = b"".join(parts)
        length = len(train)
        number = self.records
        if length > MAX_TRAIN:
            raise RecordError("record-too-long", f"a train of {length} bytes")
        if number >= RECORD_LIMIT or self.bytes >= BYTE_LIMIT:
            raise RecordError("record-key-exhausted", f"{number} records, {self.bytes} bytes")
        self.records = number + 1
        self.bytes += length
        return self._encrypt(_pack_nonce(0, number), train, None)


class Opener:
    """Opens the records of one way of one leg, in order. After an error the leg is of no more use."""

    __slots__ = ("_decrypt", "bytes", "records")

    def __init__(self, key: bytes) -> None:
        self._decrypt = AESGCM(key).decrypt
        self.records = 0
        """Records opened so far; the next one's nonce."""
        self.bytes = 0
        """Bytes of all trains opened so far."""

    def open(self, record: Buffer) -> bytes:
        """Return the train inside ``record``, in memory of its own.

        Raises RecordError: record-too-short, record-too-long, record-bad-tag, record-key-exhausted.
        """
        length = len(record)
        number = self.records
        if length < TAG_LENGTH:
            raise RecordError("record-too-short", f"{length} bytes")
        if length > MAX_RECORD:
            raise RecordError("record-too-long", f"{length} bytes")
        if number >= RECORD_LIMIT or self.bytes >= BYTE_LIMIT:
            raise RecordError("record-key-exhausted", f"{number} records, {self.bytes} bytes")
        try:
            train: bytes = self._decrypt(_pack_nonce(0, number), record, None)
        except InvalidTag:
            raise RecordError("record-bad-tag", f"record {number}") from None
        self.records = number + 1
        self.bytes += length - TAG_LENGTH
        return train
