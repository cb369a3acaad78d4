"""Noise_IK_25519_AESGCM_SHA256 against the vectors of cacophony and snow, and against misuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from halftunnel_vpn.errors import HandshakeError, IllegalTransition
from halftunnel_vpn.protocol import noise
from halftunnel_vpn.protocol.keys import KeyPair
from halftunnel_vpn.protocol.noise import CipherState, HandshakeState

VECTORS = json.loads((Path(__file__).parent / "noise-vectors.json").read_text())["vectors"]


def key(vector: dict[str, Any], name: str) -> KeyPair:
    return KeyPair(bytes.fromhex(vector[name]))


def handshake(client: KeyPair, exit_keys: KeyPair) -> tuple[HandshakeState, HandshakeState]:
    return (
        HandshakeState(s=client, prologue=b"test", rs=exit_keys.public),
        HandshakeState(s=exit_keys, prologue=b"test", rs=None),
    )


def refused(attempt: Any, *arguments: object) -> str:
    with pytest.raises(HandshakeError) as caught:
        attempt(*arguments)
    return caught.value.reason


def test_both_sources_of_vectors_are_here() -> None:
    assert {vector["source"] for vector in VECTORS} == {"cacophony", "snow"}
    assert {vector["protocol_name"].encode() for vector in VECTORS} == {noise.PROTOCOL_NAME}


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["source"])
def test_the_published_vectors(vector: dict[str, Any]) -> None:
    messages = [
        (bytes.fromhex(message["payload"]), bytes.fromhex(message["ciphertext"]))
        for message in vector["messages"]
    ]
    responder_static = key(vector, "resp_static")
    assert responder_static.public.hex() == vector["init_remote_static"]
    initiator = HandshakeState(
        s=key(vector, "init_static"),
        prologue=bytes.fromhex(vector["init_prologue"]),
        rs=bytes.fromhex(vector["init_remote_static"]),
    )
    responder = HandshakeState(s=responder_static, prologue=bytes.fromhex(vector["resp_prologue"]), rs=None)

    payload, ciphertext = messages[0]
    assert initiator.write_first(payload, key(vector, "init_ephemeral")) == ciphertext
    assert responder.read_first(ciphertext) == key(vector, "init_static").public
    assert responder.read_first_payload() == payload

    payload, ciphertext = messages[1]
    assert responder.write_second(payload, key(vector, "resp_ephemeral")) == ciphertext
    assert initiator.read_second(ciphertext) == payload

    assert initiator.handshake_hash == responder.handshake_hash
    if "handshake_hash" in vector:
        assert initiator.handshake_hash.hex() == vector["handshake_hash"]

    theirs, ours = responder.split(), initiator.split()
    for number, (payload, ciphertext) in enumerate(messages[2:]):
        way = number % 2
        assert ours[way].encrypt_with_ad(b"", payload) == ciphertext
        assert theirs[way].decrypt_with_ad(b"", ciphertext) == payload


def test_calls_out_of_turn_are_refused(client: KeyPair, exit_keys: KeyPair) -> None:
    initiator, responder = handshake(client, exit_keys)
    for call in (
        lambda: initiator.read_first(bytes(100)),
        lambda: initiator.read_first_payload(),
        lambda: initiator.read_second(bytes(100)),
        lambda: initiator.write_second(b"", client),
        lambda: initiator.split(),
        lambda: responder.write_first(b"", client),
        lambda: responder.read_first_payload(),
        lambda: responder.write_second(b"", client),
        lambda: responder.read_second(bytes(100)),
        lambda: responder.split(),
    ):
        with pytest.raises(IllegalTransition):
            call()
    message = initiator.write_first(b"", client)
    with pytest.raises(IllegalTransition):
        initiator.write_first(b"", client)
    responder.read_first(message)
    with pytest.raises(IllegalTransition):
        responder.read_first(message)


def test_after_an_error_a_handshake_is_over(client: KeyPair, exit_keys: KeyPair) -> None:
    initiator, responder = handshake(client, exit_keys)
    message = initiator.write_first(b"", client)
    assert refused(responder.read_first, message[:-1] + bytes(70000)) == "handshake-too-long"
    with pytest.raises(IllegalTransition):
        responder.read_first(message)


def test_short_messages_and_bad_points_are_refused(client: KeyPair, exit_keys: KeyPair) -> None:
    initiator, _ = handshake(client, exit_keys)
    message = initiator.write_first(b"", client)
    for length in range(96):
        _, responder = handshake(client, exit_keys)
        assert refused(responder.read_first, message[:length]) == "handshake-too-short"
    _, responder = handshake(client, exit_keys)
    assert refused(responder.read_first, bytes(32) + message[32:]) == "handshake-bad-key"
    for length in range(48):
        initiator, _ = handshake(client, exit_keys)
        initiator.write_first(b"", client)
        assert refused(initiator.read_second, bytes(length)) == "handshake-too-short"
    initiator, _ = handshake(client, exit_keys)
    initiator.write_first(b"", client)
    assert refused(initiator.read_second, bytes(48)) == "handshake-bad-key"


def test_a_static_key_of_low_order_is_refused_when_it_would_be_used(exit_keys: KeyPair) -> None:
    # A stranger that encrypts a point of low order as its static key gets no further than ss.
    class Impostor(KeyPair):
        __slots__ = ()

        def dh(self, public: bytes) -> bytes:
            return bytes(32)

    impostor = Impostor(b"i" * 32)
    impostor.public = bytes(32)
    initiator, responder = handshake(impostor, exit_keys)
    message = initiator.write_first(b"hello", KeyPair(b"e" * 32))
    assert responder.read_first(message) == bytes(32)
    assert refused(responder.read_first_payload) == "handshake-bad-key"


def test_other_prologues_do_not_understand_each_other(client: KeyPair, exit_keys: KeyPair) -> None:
    initiator, _ = handshake(client, exit_keys)
    responder = HandshakeState(s=exit_keys, prologue=b"tesT", rs=None)
    assert refused(responder.read_first, initiator.write_first(b"", client)) == "handshake-bad-tag"


def test_a_cipher_state_without_a_key_changes_nothing() -> None:
    cipher = CipherState()
    assert cipher.encrypt_with_ad(b"ad", b"text") == b"text"
    assert cipher.decrypt_with_ad(b"ad", b"text") == b"text"
    assert (cipher.k, cipher.n) == (None, 0)


def test_a_failed_decryption_does_not_move_the_nonce() -> None:
    sender, receiver = CipherState(b"k" * 32), CipherState(b"k" * 32)
    ciphertext = sender.encrypt_with_ad(b"ad", b"text")
    assert refused(receiver.decrypt_with_ad, b"other", ciphertext) == "handshake-bad-tag"
    assert receiver.decrypt_with_ad(b"ad", ciphertext) == b"text"
    assert sender.n == receiver.n == 1


def test_the_last_nonce_is_never_used() -> None:
    cipher = CipherState(b"k" * 32)
    cipher.n = noise.MAX_NONCE - 1
    ciphertext = cipher.encrypt_with_ad(b"", b"the last")
    assert refused(cipher.encrypt_with_ad, b"", b"one more") == "handshake-nonce-exhausted"
    assert refused(cipher.decrypt_with_ad, b"", ciphertext) == "handshake-nonce-exhausted"
