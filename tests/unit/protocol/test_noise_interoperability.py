"""Both roles against dissononce, an independent implementation of Noise."""

from __future__ import annotations

import os
from typing import Any

from dissononce.cipher.aesgcm import AESGCMCipher
from dissononce.dh.x25519.private import PrivateKey
from dissononce.dh.x25519.public import PublicKey
from dissononce.dh.x25519.x25519 import X25519DH
from dissononce.hash.sha256 import SHA256Hash
from dissononce.processing.handshakepatterns.interactive.IK import IKHandshakePattern
from dissononce.processing.impl.cipherstate import CipherState as OtherCipherState
from dissononce.processing.impl.handshakestate import HandshakeState as OtherHandshakeState
from dissononce.processing.impl.symmetricstate import SymmetricState as OtherSymmetricState

from halftunnel_vpn.protocol.keys import KeyPair
from halftunnel_vpn.protocol.noise import CipherState, HandshakeState

PROLOGUE = b"two implementations"


def other_end(static: KeyPair, *, initiator: bool, remote: bytes | None = None) -> Any:
    """dissononce's end of the handshake; it makes its ephemeral keys itself."""
    dh = X25519DH()
    state = OtherHandshakeState(OtherSymmetricState(OtherCipherState(AESGCMCipher()), SHA256Hash()), dh)
    state.initialize(
        IKHandshakePattern(),
        initiator,
        PROLOGUE,
        s=dh.generate_keypair(PrivateKey(static.private)),
        rs=None if remote is None else PublicKey(remote),
    )
    return state


def talk(ours: tuple[CipherState, CipherState], theirs: tuple[Any, Any]) -> None:
    """Three messages each way over the transport that the handshake made."""
    for number in range(6):
        way = number % 2
        text = f"message {number}".encode()
        if number < 3:
            assert theirs[way].decrypt_with_ad(b"", ours[way].encrypt_with_ad(b"", text)) == text
        else:
            assert ours[way].decrypt_with_ad(b"", theirs[way].encrypt_with_ad(b"", text)) == text


def test_our_client_and_the_other_exit(client: KeyPair, exit_keys: KeyPair) -> None:
    ours = HandshakeState(s=client, prologue=PROLOGUE, rs=exit_keys.public)
    theirs = other_end(exit_keys, initiator=False)

    heard = bytearray()
    theirs.read_message(ours.write_first(b"hello of the client", KeyPair(os.urandom(32))), heard)
    assert heard == b"hello of the client"
    assert theirs.rs.data == client.public

    answer = bytearray()
    their_transport = theirs.write_message(b"hello of the exit", answer)
    assert ours.read_second(bytes(answer)) == b"hello of the exit"
    assert ours.handshake_hash == theirs.symmetricstate.get_handshake_hash()
    talk(ours.split(), their_transport)


def test_the_other_client_and_our_exit(client: KeyPair, exit_keys: KeyPair) -> None:
    ours = HandshakeState(s=exit_keys, prologue=PROLOGUE, rs=None)
    theirs = other_end(client, initiator=True, remote=exit_keys.public)

    hello = bytearray()
    theirs.write_message(b"hello of the client", hello)
    assert ours.read_first(bytes(hello)) == client.public
    assert ours.read_first_payload() == b"hello of the client"

    heard = bytearray()
    answer = ours.write_second(b"hello of the exit", KeyPair(os.urandom(32)))
    their_transport = theirs.read_message(answer, heard)
    assert heard == b"hello of the exit"
    assert ours.handshake_hash == theirs.symmetricstate.get_handshake_hash()
    talk(ours.split(), their_transport)
