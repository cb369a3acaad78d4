"""How a leg joins a session: RECONNECT packets under labels (docs/PROTOCOL.md, "Joining").

The SessionID of a join is a *label*: what a keyed hash makes of the direction and of a leg number that only
rises. Each label stands on one leg of one road, once; without the key it looks random.
"""

from __future__ import annotations

import hashlib
import hmac
import struct

from halftunnel_vpn.errors import HandshakeError, WireError
from halftunnel_vpn.protocol.keys import NONCE_LENGTH, Direction, SessionKeys
from halftunnel_vpn.protocol.wire import (
    MAX_FIRST_MESSAGE,
    SESSION_ID_LENGTH,
    Buffer,
    Packet,
    PacketType,
    as_uuid4,
    decode,
    decode_authenticated,
    encode_authenticated,
    encode_header,
)

JOIN_WINDOW = 64
"""Leg numbers above the highest one used that the exit accepts, and below it that it still accepts."""

MAX_LEG_NUMBER = (1 << 32) - 1
"""The highest leg number of a direction; a session that reaches it is at its end."""

_NUMBER = struct.Struct(">I")
_REPLY = b"reply"


def label(session_keys: SessionKeys, direction: Direction, number: int) -> bytes:
    """Return the SessionID under which leg ``number`` asks to join."""
    return _keyed_label(session_keys.label_key(direction), _NUMBER.pack(number))


def reply_label(session_keys: SessionKeys, direction: Direction, number: int) -> bytes:
    """The SessionID under which the exit answers on leg ``number``; for number 0, that of Noise message 2."""
    return _keyed_label(session_keys.label_key(direction), _REPLY + _NUMBER.pack(number))


def encode_token_join(join_token: bytes, padding: bytes) -> bytes:
    """The first message on the first downstream leg, before there are keys. ``padding`` is random bytes."""
    return encode_header(PacketType.RECONNECT, join_token, 0, 0, 0, len(padding)) + padding


def decode_token_join(packet: Buffer) -> bytes:
    """Return the join token of a first downstream leg. Raises HandshakeError join-malformed."""
    try:
        decoded = decode(packet)
    except WireError as error:
        raise HandshakeError("join-malformed", str(error)) from None
    _check_shape(decoded, len(packet))
    return decoded.session_id


def encode_join(
    session_keys: SessionKeys, direction: Direction, number: int, client_nonce: bytes, padding: bytes
) -> bytes:
    """The client's RECONNECT packet on a new leg. ``client_nonce`` is 16, ``padding`` any random bytes."""
    name = label(session_keys, direction, number)
    key = session_keys.join_key(direction)
    return encode_authenticated(PacketType.RECONNECT, name, 0, 0, 0, client_nonce + padding, key)


def verify_join(packet: Buffer, session_keys: SessionKeys, direction: Direction, number: int) -> bytes:
    """Return the client's nonce from the RECONNECT packet of leg ``number``.

    The caller knows the number by the label (:class:`LabelWindow`) and must mark it as used.

    Raises HandshakeError: join-malformed, join-bad-mac, join-unknown (the label of another leg).
    """
    name = label(session_keys, direction, number)
    return _verify(packet, session_keys.join_key(direction), name)


def encode_join_reply(
    session_keys: SessionKeys,
    direction: Direction,
    number: int,
    client_nonce: bytes,
    exit_nonce: bytes,
    padding: bytes,
) -> bytes:
    """Return the exit's RECONNECT packet that answers a join; its HMAC covers the client's nonce as well."""
    name = reply_label(session_keys, direction, number)
    key = _reply_key(session_keys, direction, client_nonce)
    return encode_authenticated(PacketType.RECONNECT, name, 0, 0, 0, exit_nonce + padding, key)


def verify_join_reply(
    packet: Buffer, session_keys: SessionKeys, direction: Direction, number: int, client_nonce: bytes
) -> bytes:
    """Return the exit's nonce. Raises HandshakeError: join-malformed, join-bad-mac, join-unknown."""
    name = reply_label(session_keys, direction, number)
    return _verify(packet, _reply_key(session_keys, direction, client_nonce), name)


class LabelWindow:
    """Which legs of one direction may still join: each number once, in a window around the highest used.

    Number 0 is the handshake's and counts as used. At most 2 * JOIN_WINDOW labels at a time.
    """

    __slots__ = ("_direction", "_highest", "_labels", "_session_keys")

    def __init__(self, session_keys: SessionKeys, direction: Direction) -> None:
        self._session_keys = session_keys
        self._direction = direction
        self._highest = 0
        self._labels: dict[int, bytes] = {}
        self._extend(1)

    def labels(self) -> dict[bytes, int]:
        """Return every label that is accepted now, with its leg number."""
        return {name: number for number, name in self._labels.items()}

    def use(self, number: int) -> tuple[list[bytes], dict[bytes, int]]:
        """Accept ``number``: the labels that are accepted no more, and those that are from now on.

        Raises HandshakeError: join-replayed (used, or too far below the highest), join-unknown (too far
        above it).
        """
        if number not in self._labels:
            raise HandshakeError("join-replayed" if number <= self._highest else "join-unknown")
        removed = [self._labels.pop(number)]
        if number <= self._highest:
            return removed, {}
        first_new = self._highest + JOIN_WINDOW + 1
        self._highest = number
        for stale in [old for old in self._labels if old <= number - JOIN_WINDOW]:
            removed.append(self._labels.pop(stale))
        return removed, self._extend(first_new)

    def _extend(self, first: int) -> dict[bytes, int]:
        """Make the labels from ``first`` up to the upper edge of the window."""
        added = {}
        for number in range(first, min(self._highest + JOIN_WINDOW, MAX_LEG_NUMBER) + 1):
            name = self._labels[number] = label(self._session_keys, self._direction, number)
            added[name] = number
        return added


def _keyed_label(key: bytes, message: bytes) -> bytes:
    return as_uuid4(hmac.digest(key, message, hashlib.sha256)[:SESSION_ID_LENGTH])


def _reply_key(session_keys: SessionKeys, direction: Direction, client_nonce: bytes) -> bytes:
    return hmac.digest(session_keys.join_key(direction), _REPLY + client_nonce, hashlib.sha256)


def _verify(packet: Buffer, key: bytes, name: bytes) -> bytes:
    """Return the nonce in an authenticated RECONNECT packet named ``name``."""
    try:
        decoded = decode_authenticated(packet, key)
    except WireError as error:
        reason = "join-bad-mac" if error.reason == "wire-bad-mac" else "join-malformed"
        raise HandshakeError(reason, str(error)) from None
    _check_shape(decoded, len(packet))
    if decoded.session_id != name:
        raise HandshakeError("join-unknown")
    if len(decoded.payload) < NONCE_LENGTH:
        raise HandshakeError("join-malformed", "no nonce")
    return bytes(decoded.payload[:NONCE_LENGTH])


def _check_shape(packet: Packet, length: int) -> None:
    """A join is a RECONNECT packet of bounded length whose numbers are all zero."""
    if packet.type is not PacketType.RECONNECT:
        raise HandshakeError("join-malformed", packet.type.name)
    if packet.stream_id or packet.sequence or packet.acknowledgement:
        raise HandshakeError("join-malformed", "a number that must be zero")
    if length > MAX_FIRST_MESSAGE:
        raise HandshakeError("join-malformed", f"{length} bytes")
