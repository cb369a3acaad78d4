"""The two messages that make a session: HANDSHAKE packets around Noise IK (docs/PROTOCOL.md, "Handshake").

Message 1 goes to the exit upstream on domain A, message 2 comes back downstream on domain B. At the exit::

    offer = receive_hello(packet, exit_keys)                 # one DH: who claims to speak?
    ...look offer.client_public up...
    hello = offer.open()                                     # one more DH: its key is proven
    guard.check(offer.client_public, hello.timestamp, wall_time)
    reply, session_keys = offer.answer(exit_hello, ephemeral, padding=n)
"""

from __future__ import annotations

import hmac

from halftunnel_vpn.errors import ConfigError, HandshakeError, WireError
from halftunnel_vpn.protocol.handshake_payloads import ClientHello, ExitHello, ExitStatus
from halftunnel_vpn.protocol.join import reply_label
from halftunnel_vpn.protocol.keys import Direction, KeyPair, SessionKeys, decode_key, encode_key
from halftunnel_vpn.protocol.noise import DHLEN, TAG_LENGTH, HandshakeState
from halftunnel_vpn.protocol.wire import (
    HEADER_LENGTH,
    MAX_FIRST_MESSAGE,
    Buffer,
    PacketType,
    as_uuid4,
    decode,
    encode_header,
)

__all__ = [
    "ClientHandshake",
    "ClientHello",
    "ExitHello",
    "ExitStatus",
    "HandshakeRefused",
    "Offer",
    "ReplayGuard",
    "receive_hello",
]

PROLOGUE = b"Half-Tunnel 1"
"""Begins the Noise prologue; the header of message 1 follows, so that no bit of it can be changed."""

MAX_CLOCK_SKEW = 300_000_000
"""Microseconds by which the two wall clocks may differ."""

MAX_REPLAY_CLIENTS = 65536
"""Clients whose last timestamp a ReplayGuard remembers at one time."""

_FIRST_OVERHEAD = DHLEN + DHLEN + TAG_LENGTH + TAG_LENGTH


class HandshakeRefused(HandshakeError):
    """The exit has answered, in a message 2 that is genuine, that it gives no session now."""

    def __init__(self, exit_hello: ExitHello) -> None:
        super().__init__(f"handshake-refused-{exit_hello.status.name.lower().replace('_', '-')}")
        self.exit_hello = exit_hello
        """The reason, and the time at the exit."""


class ClientHandshake:
    """The client's end of one handshake. ``ephemeral`` is 32 fresh random bytes, used for nothing else.

    ``packet_id`` is 16 fresh random bytes that become the SessionID of message 1 and appear nowhere else.
    """

    __slots__ = ("_message", "_noise")

    def __init__(
        self,
        static: KeyPair,
        exit_public: bytes,
        hello: ClientHello,
        ephemeral: bytes,
        *,
        packet_id: bytes,
        padding: int = 0,
    ) -> None:
        """``padding`` bytes are added inside the encryption.

        Raises HandshakeError: handshake-bad-key, handshake-too-long (too much padding).
        """
        payload = hello.encode(padding)
        length = _FIRST_OVERHEAD + len(payload)
        _check_length(HEADER_LENGTH + length)
        header = encode_header(PacketType.HANDSHAKE, as_uuid4(packet_id), 0, 0, 0, length)
        self._noise = HandshakeState(s=static, prologue=PROLOGUE + header, rs=exit_public)
        self._message = header + self._noise.write_first(payload, KeyPair(ephemeral))

    def message(self) -> bytes:
        """Message 1: a complete HANDSHAKE packet, to be sent once."""
        return self._message

    def finish(self, packet: Buffer) -> tuple[ExitHello, SessionKeys]:
        """Read message 2, once: what the exit grants, and the keys of the session.

        Raises HandshakeError: handshake-malformed, handshake-too-short, handshake-too-long,
        handshake-bad-key, handshake-bad-tag, handshake-wrong-label; HandshakeRefused when the exit refuses.
        """
        session_id, message = _decode_handshake(packet)
        exit_hello = ExitHello.decode(self._noise.read_second(message))
        session_keys = _session_keys(self._noise)
        if not hmac.compare_digest(session_id, reply_label(session_keys, Direction.DOWNSTREAM, 0)):
            raise HandshakeError("handshake-wrong-label")
        if exit_hello.status is not ExitStatus.OK:
            raise HandshakeRefused(exit_hello)
        return exit_hello, session_keys


class Offer:
    """A message 1 at the exit. Made by :func:`receive_hello`, when one DH has been paid."""

    __slots__ = ("_noise", "client_public")

    def __init__(self, noise: HandshakeState, client_public: bytes) -> None:
        self._noise = noise
        self.client_public = client_public
        """The static key that the client claims; proven only when :meth:`open` returns."""

    def open(self) -> ClientHello:
        """Prove the client's key and read its hello, once; the second DH.

        Raises HandshakeError: handshake-bad-key, handshake-bad-tag, handshake-malformed,
        handshake-bad-version.
        """
        return ClientHello.decode(self._noise.read_first_payload())

    def answer(
        self, exit_hello: ExitHello, ephemeral: bytes, *, padding: int = 0
    ) -> tuple[bytes, SessionKeys]:
        """Message 2, a complete HANDSHAKE packet, and the keys of the session, once.

        ``ephemeral`` is 32 fresh random bytes. Raises HandshakeError: handshake-bad-key, handshake-too-long.
        """
        payload = exit_hello.encode(padding)
        length = DHLEN + TAG_LENGTH + len(payload)
        _check_length(HEADER_LENGTH + length)
        message = self._noise.write_second(payload, KeyPair(ephemeral))
        session_keys = _session_keys(self._noise)
        name = reply_label(session_keys, Direction.DOWNSTREAM, 0)
        return encode_header(PacketType.HANDSHAKE, name, 0, 0, 0, length) + message, session_keys


def receive_hello(packet: Buffer, exit_keys: KeyPair) -> Offer:
    """Read message 1 as far as the client's static key; one DH, nothing kept.

    Raises HandshakeError: handshake-malformed, handshake-too-short, handshake-too-long, handshake-bad-key,
    handshake-bad-tag.
    """
    _, message = _decode_handshake(packet)
    header = bytes(packet[:HEADER_LENGTH])
    noise = HandshakeState(s=exit_keys, prologue=PROLOGUE + header, rs=None)
    return Offer(noise, noise.read_first(message))


class ReplayGuard:
    """Refuses a message 1 that was seen before: each client's timestamps must rise and be near our time.

    A timestamp older than the skew is refused for that alone, so an older memory can be forgotten.
    """

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: dict[bytes, int] = {}

    def check(self, client_public: bytes, timestamp: int, wall_time: int) -> None:
        """Accept ``timestamp`` of a client whose key is proven; both times are microseconds since 1970.

        Raises HandshakeError: handshake-clock-skew, handshake-replayed, handshake-guard-full.
        """
        if abs(timestamp - wall_time) > MAX_CLOCK_SKEW:
            raise HandshakeError("handshake-clock-skew", f"{(timestamp - wall_time) / 1e6:+.0f} s")
        last = self._last.get(client_public)
        if last is not None and timestamp <= last:
            raise HandshakeError("handshake-replayed")
        if last is None and len(self._last) >= MAX_REPLAY_CLIENTS:
            self._forget(wall_time)
            if len(self._last) >= MAX_REPLAY_CLIENTS:
                raise HandshakeError("handshake-guard-full")
        self._last[client_public] = timestamp

    def last(self, client_public: bytes) -> int:
        """Return the last timestamp accepted from a client, 0 if none is known."""
        return self._last.get(client_public, 0)

    def export(self) -> dict[str, int]:
        """Last timestamps by the client's key in base64, for the exit to keep over a restart."""
        return {encode_key(public): timestamp for public, timestamp in self._last.items()}

    def load(self, exported: dict[str, int]) -> None:
        """Take over what :meth:`export` gave; the later of two timestamps counts.

        Raises ConfigError for a key or a timestamp that is none, and when there are too many.
        """
        for text, timestamp in exported.items():
            public = decode_key(text)
            if not isinstance(timestamp, int):
                raise ConfigError("the file of handshake times holds a wrong time; delete it")
            if len(self._last) >= MAX_REPLAY_CLIENTS and public not in self._last:
                raise ConfigError(f"the file of handshake times holds more than {MAX_REPLAY_CLIENTS} clients")
            self._last[public] = max(timestamp, self._last.get(public, 0))

    def _forget(self, wall_time: int) -> None:
        oldest = wall_time - MAX_CLOCK_SKEW
        self._last = {public: timestamp for public, timestamp in self._last.items() if timestamp >= oldest}


def _decode_handshake(packet: Buffer) -> tuple[bytes, bytes]:
    """SessionID and Noise message of a HANDSHAKE packet."""
    _check_length(len(packet))
    try:
        decoded = decode(packet)
    except WireError as error:
        raise HandshakeError("handshake-malformed", str(error)) from None
    if decoded.type is not PacketType.HANDSHAKE:
        raise HandshakeError("handshake-malformed", decoded.type.name)
    if decoded.stream_id or decoded.sequence or decoded.acknowledgement:
        raise HandshakeError("handshake-malformed", "a number that must be zero")
    return decoded.session_id, bytes(decoded.payload)


def _check_length(length: int) -> None:
    if length > MAX_FIRST_MESSAGE:
        raise HandshakeError("handshake-too-long", f"{length} bytes")


def _session_keys(noise: HandshakeState) -> SessionKeys:
    initiator, responder = noise.split()
    assert initiator.k is not None and responder.k is not None
    return SessionKeys.from_handshake(initiator.k, responder.k, noise.handshake_hash)
