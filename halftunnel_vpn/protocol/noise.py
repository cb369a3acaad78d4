"""Noise_IK_25519_AESGCM_SHA256, both roles (The Noise Protocol Framework, revision 34).

    IK:
      <- s
      ...
      -> e, es, s, ss
      <- e, ee, se

Names are those of the specification, section 5. One thing is added: a responder may stop in front of ``ss``,
when it has paid one DH and knows who claims to speak, and go on only if it wants to.
"""

from __future__ import annotations

import hashlib
import struct
from enum import Enum, auto

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from halftunnel_vpn.errors import HandshakeError, IllegalTransition
from halftunnel_vpn.protocol.keys import KEY_LENGTH, KeyPair, hkdf

PROTOCOL_NAME = b"Noise_IK_25519_AESGCM_SHA256"

DHLEN = KEY_LENGTH
"""Bytes of a public key."""

HASHLEN = 32
"""Bytes of a hash."""

TAG_LENGTH = 16
"""Bytes that encryption adds."""

MAX_MESSAGE = 65535
"""Bytes of the longest Noise message (section 3)."""

MAX_NONCE = (1 << 64) - 1
"""Reserved by the specification for rekeying; no message is encrypted under it."""

_pack_nonce = struct.Struct(">IQ").pack


class CipherState:
    """A key and the counter of what was encrypted with it (section 5.1)."""

    __slots__ = ("k", "n")

    def __init__(self, k: bytes | None = None) -> None:
        self.k = k
        self.n = 0

    def encrypt_with_ad(self, ad: bytes, plaintext: bytes) -> bytes:
        """``plaintext`` and a tag; unchanged while there is no key."""
        if self.k is None:
            return plaintext
        ciphertext = AESGCM(self.k).encrypt(self._nonce(), plaintext, ad)
        self.n += 1
        return ciphertext

    def decrypt_with_ad(self, ad: bytes, ciphertext: bytes) -> bytes:
        """Reverse of :meth:`encrypt_with_ad`. Raises HandshakeError handshake-bad-tag; ``n`` stays then."""
        if self.k is None:
            return ciphertext
        try:
            plaintext = AESGCM(self.k).decrypt(self._nonce(), ciphertext, ad)
        except InvalidTag:
            raise HandshakeError("handshake-bad-tag") from None
        self.n += 1
        return plaintext

    def _nonce(self) -> bytes:
        if self.n >= MAX_NONCE:
            raise HandshakeError("handshake-nonce-exhausted")
        return _pack_nonce(0, self.n)


class SymmetricState:
    """The chaining key and the hash of everything so far (section 5.2)."""

    __slots__ = ("cipher", "ck", "h")

    def __init__(self, protocol_name: bytes) -> None:
        # A name of at most HASHLEN bytes stands for itself, padded with zeros.
        self.h = protocol_name.ljust(HASHLEN, b"\0")
        self.ck = self.h
        self.cipher = CipherState()

    def mix_key(self, input_key_material: bytes) -> None:
        """Take secret ``input_key_material`` into the chaining key; starts a new cipher key."""
        output = hkdf(input_key_material, self.ck, b"", 2 * HASHLEN)
        self.ck = output[:HASHLEN]
        self.cipher = CipherState(output[HASHLEN:])

    def mix_hash(self, data: bytes) -> None:
        """Take public ``data`` into the hash."""
        self.h = hashlib.sha256(self.h + data).digest()

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        """Encrypt with the hash as associated data, and take the ciphertext into the hash."""
        ciphertext = self.cipher.encrypt_with_ad(self.h, plaintext)
        self.mix_hash(ciphertext)
        return ciphertext

    def decrypt_and_hash(self, ciphertext: bytes) -> bytes:
        """Reverse of :meth:`encrypt_and_hash`. Raises HandshakeError handshake-bad-tag."""
        plaintext = self.cipher.decrypt_with_ad(self.h, ciphertext)
        self.mix_hash(ciphertext)
        return plaintext

    def split(self) -> tuple[CipherState, CipherState]:
        """Return the cipher states of the transport: initiator to responder, responder to initiator."""
        output = hkdf(b"", self.ck, b"", 2 * HASHLEN)
        return CipherState(output[:HASHLEN]), CipherState(output[HASHLEN:])


class _Step(Enum):
    """Which call a handshake state waits for."""

    WRITE_FIRST = auto()
    READ_FIRST = auto()
    READ_FIRST_PAYLOAD = auto()
    WRITE_SECOND = auto()
    READ_SECOND = auto()
    DONE = auto()
    FAILED = auto()


class HandshakeState:
    """One end of the IK handshake (section 5.3).

    The initiator calls :meth:`write_first`, then :meth:`read_second`; the responder :meth:`read_first`,
    :meth:`read_first_payload`, :meth:`write_second`. A call out of turn, or after an error, raises
    IllegalTransition. When both messages are through, :meth:`split` gives the transport keys and
    :attr:`handshake_hash` names the handshake for channel binding (section 11.2).
    """

    __slots__ = ("_e", "_payload", "_re", "_rs", "_s", "_step", "_symmetric")

    def __init__(self, *, s: KeyPair, prologue: bytes, rs: bytes | None) -> None:
        """``s`` is this end's static pair; ``rs`` the responder's public key, for an initiator only."""
        self._s = s
        self._rs = b"" if rs is None else rs
        self._e: KeyPair | None = None
        self._re = b""
        self._payload = b""
        self._step = _Step.READ_FIRST if rs is None else _Step.WRITE_FIRST
        self._symmetric = SymmetricState(PROTOCOL_NAME)
        self._symmetric.mix_hash(prologue)
        self._symmetric.mix_hash(s.public if rs is None else rs)

    @property
    def handshake_hash(self) -> bytes:
        """``h``: 32 bytes, the same at both ends and different for every handshake."""
        return self._symmetric.h

    def write_first(self, payload: bytes, e: KeyPair) -> bytes:
        """Return the initiator's message ``e, es, s, ss`` and ``payload``. ``e`` must be fresh."""
        self._advance(_Step.WRITE_FIRST, _Step.READ_SECOND)
        symmetric = self._symmetric
        self._e = e
        symmetric.mix_hash(e.public)
        symmetric.mix_key(e.dh(self._rs))
        static = symmetric.encrypt_and_hash(self._s.public)
        symmetric.mix_key(self._s.dh(self._rs))
        return e.public + static + symmetric.encrypt_and_hash(payload)

    def read_first(self, message: bytes) -> bytes:
        """Read ``e, es, s`` of the first message: the initiator's static public key, *not yet proven*.

        One DH. Raises HandshakeError: handshake-too-short, handshake-too-long, handshake-bad-key,
        handshake-bad-tag.
        """
        self._advance(_Step.READ_FIRST, _Step.FAILED)
        end_of_static = DHLEN + DHLEN + TAG_LENGTH
        _check_length(message, end_of_static + TAG_LENGTH)
        symmetric = self._symmetric
        self._re = message[:DHLEN]
        symmetric.mix_hash(self._re)
        symmetric.mix_key(self._s.dh(self._re))
        self._rs = symmetric.decrypt_and_hash(message[DHLEN:end_of_static])
        self._payload = message[end_of_static:]
        self._step = _Step.READ_FIRST_PAYLOAD
        return self._rs

    def read_first_payload(self) -> bytes:
        """Read ``ss`` and the payload, which proves the initiator's static key. One DH more.

        Raises HandshakeError: handshake-bad-key, handshake-bad-tag.
        """
        self._advance(_Step.READ_FIRST_PAYLOAD, _Step.FAILED)
        self._symmetric.mix_key(self._s.dh(self._rs))
        payload = self._symmetric.decrypt_and_hash(self._payload)
        self._step = _Step.WRITE_SECOND
        return payload

    def write_second(self, payload: bytes, e: KeyPair) -> bytes:
        """Return the responder's message ``e, ee, se`` and ``payload``. ``e`` must be fresh.

        Raises HandshakeError handshake-bad-key.
        """
        self._advance(_Step.WRITE_SECOND, _Step.FAILED)
        symmetric = self._symmetric
        symmetric.mix_hash(e.public)
        symmetric.mix_key(e.dh(self._re))
        symmetric.mix_key(e.dh(self._rs))
        message = e.public + symmetric.encrypt_and_hash(payload)
        self._step = _Step.DONE
        return message

    def read_second(self, message: bytes) -> bytes:
        """Read the responder's message: its payload.

        Raises HandshakeError: handshake-too-short, handshake-too-long, handshake-bad-key, handshake-bad-tag.
        """
        self._advance(_Step.READ_SECOND, _Step.FAILED)
        _check_length(message, DHLEN + TAG_LENGTH)
        assert self._e is not None
        symmetric = self._symmetric
        re = message[:DHLEN]
        symmetric.mix_hash(re)
        symmetric.mix_key(self._e.dh(re))
        symmetric.mix_key(self._s.dh(re))
        payload = symmetric.decrypt_and_hash(message[DHLEN:])
        self._step = _Step.DONE
        return payload

    def split(self) -> tuple[CipherState, CipherState]:
        """Return the transport's cipher states: initiator to responder, responder to initiator."""
        self._advance(_Step.DONE, _Step.DONE)
        return self._symmetric.split()

    def _advance(self, expected: _Step, following: _Step) -> None:
        """Leave ``expected``; a reader waits in FAILED until it has succeeded."""
        if self._step is not expected:
            raise IllegalTransition(f"a Noise handshake in {self._step.name} was asked for {expected.name}")
        self._step = following


def _check_length(message: bytes, least: int) -> None:
    if len(message) < least:
        raise HandshakeError("handshake-too-short", f"{len(message)} bytes")
    if len(message) > MAX_MESSAGE:
        raise HandshakeError("handshake-too-long", f"{len(message)} bytes")
