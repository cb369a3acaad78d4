"""X25519 key pairs, their text form, and every key of a session (docs/PROTOCOL.md, "Key schedule").

session secret = HKDF(ikm = k1 || k2 of Noise's Split, salt = handshake hash, "halftunnel session")
leg keys       = HKDF(session secret, client nonce || exit nonce, "halftunnel leg" || direction || number)
join, label    = HKDF(session secret, "", "halftunnel join" | "halftunnel label" || direction)
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import struct
from enum import Enum
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from halftunnel_vpn.errors import ConfigError, HandshakeError

KEY_LENGTH = 32
"""Bytes of every key here, private, public and symmetric."""

NONCE_LENGTH = 16
"""Bytes of the fresh randomness that each end gives to the keys of a leg."""

_LEG_NUMBER = struct.Struct(">I")


def log_id(session_id: bytes) -> str:
    """Return the log name of a session: 8 hexadecimal digits that do not reveal its UUID."""
    return hashlib.sha256(b"half-tunnel log\0" + session_id).hexdigest()[:8]


class Direction(Enum):
    """Which half of the tunnel a leg serves; the value is the byte that stands for it in derivations."""

    UPSTREAM = b"u"
    DOWNSTREAM = b"d"


class KeyPair:
    """An X25519 key pair (RFC 7748) made from 32 random bytes."""

    __slots__ = ("_private", "private", "public")

    def __init__(self, private: bytes) -> None:
        self._private = X25519PrivateKey.from_private_bytes(private)
        self.private = private
        self.public = self._private.public_key().public_bytes_raw()

    def dh(self, public: bytes) -> bytes:
        """Return the 32 shared bytes. Raises HandshakeError handshake-bad-key for a point of low order."""
        try:
            return self._private.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:
            raise HandshakeError("handshake-bad-key") from None


def parse_key_pair(text: str, source: str) -> KeyPair:
    """Return the pair whose private key is ``text``, as :func:`encode_key` writes it.

    Raises ConfigError, which names ``source`` and does not repeat the text.
    """
    try:
        return KeyPair(decode_key(text))
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None


class LegKeys(NamedTuple):
    """The record keys of one leg, one for each way."""

    client_to_exit: bytes
    exit_to_client: bytes


class SessionKeys:
    """What both ends hold after the handshake: the session secret and what follows from it."""

    __slots__ = ("_join_keys", "_label_keys", "secret")

    def __init__(self, secret: bytes) -> None:
        self.secret = secret
        self._join_keys = {
            direction: hkdf(secret, b"", b"halftunnel join" + direction.value, KEY_LENGTH)
            for direction in Direction
        }
        self._label_keys = {
            direction: hkdf(secret, b"", b"halftunnel label" + direction.value, KEY_LENGTH)
            for direction in Direction
        }

    @classmethod
    def from_handshake(cls, k1: bytes, k2: bytes, handshake_hash: bytes) -> SessionKeys:
        """Return the keys that follow from Noise's Split() and handshake hash."""
        return cls(hkdf(k1 + k2, handshake_hash, b"halftunnel session", KEY_LENGTH))

    def join_key(self, direction: Direction) -> bytes:
        """Return the HMAC key of the RECONNECT packets of a direction."""
        return self._join_keys[direction]

    def label_key(self, direction: Direction) -> bytes:
        """Return the key from which the labels of a direction are made."""
        return self._label_keys[direction]

    def leg_keys(self, direction: Direction, number: int, client_nonce: bytes, exit_nonce: bytes) -> LegKeys:
        """The record keys of leg ``number`` of ``direction``; number 0 is the handshake's leg there."""
        info = b"halftunnel leg" + direction.value + _LEG_NUMBER.pack(number)
        keys = hkdf(self.secret, client_nonce + exit_nonce, info, 2 * KEY_LENGTH)
        return LegKeys(keys[:KEY_LENGTH], keys[KEY_LENGTH:])


def hkdf(input_key: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """HKDF-SHA256, extract and expand (RFC 5869): ``length`` bytes, at most 8160."""
    extracted = hmac.digest(salt or bytes(hashlib.sha256().digest_size), input_key, hashlib.sha256)
    output = block = b""
    counter = 1
    while len(output) < length:
        block = hmac.digest(extracted, block + info + bytes((counter,)), hashlib.sha256)
        output += block
        counter += 1
    return output[:length]


def encode_key(key: bytes) -> str:
    """Return a 32-byte key as it stands in configurations: base64, 44 characters."""
    return base64.b64encode(key).decode("ascii")


def decode_key(text: str) -> bytes:
    """Reverse of :func:`encode_key`. Raises ConfigError, without repeating the text: it may be a secret."""
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise ConfigError("a key must be 32 bytes in base64 (44 characters); this is not base64") from None
    if len(key) != KEY_LENGTH:
        raise ConfigError(f"a key must be 32 bytes in base64 (44 characters); this holds {len(key)} bytes")
    return key
