"""Key pairs, their text form, and the key schedule."""

from __future__ import annotations

import os

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st

from halftunnel_vpn.errors import ConfigError, HandshakeError
from halftunnel_vpn.protocol.keys import Direction, KeyPair, SessionKeys, decode_key, encode_key, hkdf

LOW_ORDER = [
    bytes(32),
    bytes([1]) + bytes(31),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]


def derived(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """HKDF-SHA256 as the cryptography package does it."""
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=salt, info=info).derive(secret)


def test_two_pairs_share_one_secret() -> None:
    one, other = KeyPair(os.urandom(32)), KeyPair(os.urandom(32))
    assert one.dh(other.public) == other.dh(one.public)
    assert one.dh(other.public) != one.dh(one.public)


@pytest.mark.parametrize("public", LOW_ORDER)
def test_a_point_of_low_order_is_refused(client: KeyPair, public: bytes) -> None:
    with pytest.raises(HandshakeError) as caught:
        client.dh(public)
    assert caught.value.reason == "handshake-bad-key"


@given(st.binary(max_size=80), st.binary(max_size=80), st.binary(max_size=40), st.integers(1, 200))
@settings(max_examples=50, deadline=None)
def test_hkdf_agrees_with_another_implementation(ikm: bytes, salt: bytes, info: bytes, length: int) -> None:
    assert hkdf(ikm, salt, info, length) == derived(ikm, salt, info, length)


@given(st.binary(min_size=32, max_size=32))
@settings(max_examples=20, deadline=None)
def test_the_text_of_a_key_reads_back(key: bytes) -> None:
    text = encode_key(key)
    assert len(text) == 44
    assert decode_key(f" {text}\n") == key


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "holds 0 bytes"),
        ("AAAA", "holds 3 bytes"),
        ("A" * 43, "not base64"),
        ("-" * 44, "not base64"),
        ("\u00fc" * 44, "not base64"),
        ("A" * 48, "holds 36 bytes"),
    ],
)
def test_what_is_no_key_is_a_mistake_in_the_configuration(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        decode_key(text)
    assert text == "" or text not in str(caught.value)


def test_the_session_secret_follows_from_split_and_handshake_hash() -> None:
    k1, k2, handshake_hash = b"1" * 32, b"2" * 32, b"h" * 32
    keys = SessionKeys.from_handshake(k1, k2, handshake_hash)
    assert keys.secret == derived(k1 + k2, handshake_hash, b"halftunnel session", 32)


def test_every_key_of_a_session_follows_from_its_secret(session_keys: SessionKeys) -> None:
    for direction, letter in ((Direction.UPSTREAM, b"u"), (Direction.DOWNSTREAM, b"d")):
        secret = session_keys.secret
        assert session_keys.join_key(direction) == derived(secret, b"", b"halftunnel join" + letter, 32)
        assert session_keys.label_key(direction) == derived(secret, b"", b"halftunnel label" + letter, 32)
        leg = session_keys.leg_keys(direction, 258, b"c" * 16, b"e" * 16)
        both = derived(secret, b"c" * 16 + b"e" * 16, b"halftunnel leg" + letter + b"\0\0\1\2", 64)
        assert leg.client_to_exit + leg.exit_to_client == both


def test_no_two_keys_are_the_same(session_keys: SessionKeys) -> None:
    made = [
        key
        for direction in Direction
        for number in range(3)
        for client_nonce in (b"a" * 16, b"b" * 16)
        for exit_nonce in (b"a" * 16, b"b" * 16)
        for key in session_keys.leg_keys(direction, number, client_nonce, exit_nonce)
    ]
    for direction in Direction:
        made += [session_keys.join_key(direction), session_keys.label_key(direction)]
    assert len(set(made)) == len(made) == 52
