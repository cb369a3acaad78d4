"""The packet: 34 bytes of header, a payload and, if flagged, an HMAC (docs/PROTOCOL.md, "Packets").

    Magic 2 | Version 1 | Flags 1 | SessionID 16 | StreamID 4 | SeqNum 4 | AckNum 4 | PayloadLen 2
    | Payload 0..65535 | HMAC 32 if flagged

All integers are big-endian. The low nibble of the flags is the packet's type; bit 0x80 means that an
HMAC-SHA256 over everything before it follows the payload; the other bits are zero.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable
from enum import IntEnum
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias

from halftunnel_vpn.errors import WireError

Buffer = bytes | bytearray | memoryview
"""Anything that holds bytes: what the functions of this package take."""

View: TypeAlias = memoryview
"""A part of a record, as a type of fields: the compiled build looks for those in the module."""

MAGIC: Final = 0x4854
"""The letters "HT"."""

VERSION: Final = 1
"""Version of the wire format."""

HEADER: Final = struct.Struct(">HBB16sIIIH")
"""Magic, version, flags, session id, stream id, sequence, acknowledgement, payload length."""

HEADER_LENGTH: Final = 34
"""Bytes of a header."""

SESSION_ID_LENGTH: Final = 16
"""Bytes of a SessionID, a UUIDv4 or what looks like one."""

FLAG_HMAC: Final = 0x80
"""Flag: a 32-byte HMAC-SHA256 follows the payload."""

HMAC_LENGTH: Final = 32
"""Bytes of the HMAC behind an authenticated packet."""

MAX_FIRST_MESSAGE: Final = 4096
"""Bytes of the longest HANDSHAKE or RECONNECT message: all that a stranger may make the other end look at."""

SMALL_PAYLOAD: Final = 2048
"""Bytes below which a payload is copied: a stalled reader must not keep whole trains in memory."""

SEQUENCE_MODULUS: Final = 1 << 32
"""SeqNum and AckNum count modulo this."""


class PacketType(IntEnum):
    """What a packet is: the low nibble of its flags."""

    DATA = 1
    ACK = 2
    FIN = 3
    KEEPALIVE = 4
    HANDSHAKE = 5
    RECONNECT = 6
    OPEN = 7
    RESET = 8
    PADDING = 9


class Packet(NamedTuple):
    """One packet; ``payload`` points into the buffer it was decoded from, or is a copy if it is small."""

    type: PacketType
    session_id: bytes
    stream_id: int
    sequence: int
    acknowledgement: int
    payload: View

    def follows(self, other: Packet) -> bool:
        """Return whether this is the packet of the same stream right behind ``other``."""
        return self.stream_id == other.stream_id and self.sequence == (other.sequence + 1) % SEQUENCE_MODULUS


# The first four bytes as one integer: one dictionary look-up checks magic, version and flags.
_PREFIX: Final = MAGIC << 16 | VERSION << 8
_PREFIXED_HEADER: Final = struct.Struct(">I16sIIIH")
_Header = tuple[Any, bytes, Any, Any, Any, int]
"""Its fields. Those that are only passed on stay objects in the compiled build."""

_TYPES_OF_LEGS: Final = {
    _PREFIX | packet_type: packet_type for packet_type in (PacketType.HANDSHAKE, PacketType.RECONNECT)
}
_TYPES_OF_TRAINS: Final = {
    _PREFIX | packet_type: packet_type
    for packet_type in PacketType
    if packet_type not in (PacketType.HANDSHAKE, PacketType.RECONNECT)
}
_TYPES_PLAIN: Final = _TYPES_OF_TRAINS | _TYPES_OF_LEGS
_TYPES_AUTHENTICATED: Final = {
    prefix | FLAG_HMAC: packet_type for prefix, packet_type in _TYPES_PLAIN.items()
}

encode_header: Final[Callable[[int, bytes, int, int, int, int], bytes]] = partial(HEADER.pack, MAGIC, VERSION)
"""The 34 bytes before a payload, from type (PacketType), SessionID, StreamID, SeqNum, AckNum and PayloadLen.

No function, since every packet needs it: this makes no call in Python."""


def decode(view: Buffer) -> Packet:
    """Return the one packet without an HMAC that ``view`` holds, of any type.

    Raises WireError: wire-bad-magic, wire-bad-version, wire-bad-flags, wire-truncated, wire-trailing-bytes.
    """
    return _decode_one(memoryview(view), _TYPES_PLAIN, 0)


def as_uuid4(raw: bytes) -> bytes:
    """Return the 16 bytes ``raw`` with the version and variant bits of a UUIDv4 (RFC 9562 section 5.4)."""
    return raw[:6] + bytes((raw[6] & 0x0F | 0x40, raw[7], raw[8] & 0x3F | 0x80)) + raw[9:16]


def iter_train(view: Buffer, session_id: bytes) -> list[Packet]:
    """The packets of a train, the plaintext of one record, all of session ``session_id``; at least one.

    Raises WireError for the train as a whole: wire-bad-magic, wire-bad-version, wire-bad-flags (an unknown
    type, or a flag that has no place in a train), wire-unexpected-type (HANDSHAKE, RECONNECT),
    wire-wrong-session, wire-truncated.
    """
    data = view if isinstance(view, bytes) else bytes(view)
    train = memoryview(data)
    end = len(data)
    last_header = end - HEADER_LENGTH
    unpack_from = _PREFIXED_HEADER.unpack_from
    types = _TYPES_OF_TRAINS
    new = tuple.__new__  # NamedTuple's own constructor costs more
    packets: list[Packet] = []
    append = packets.append
    offset = 0
    try:
        while offset <= last_header:
            header: _Header = unpack_from(data, offset)
            prefix, session, stream_id, sequence, acknowledgement, length = header
            packet_type = types[prefix]
            if session != session_id:
                raise WireError("wire-wrong-session")
            start = offset + HEADER_LENGTH
            offset = start + length
            payload = train[start:offset] if length >= SMALL_PAYLOAD else memoryview(data[start:offset])
            append(new(Packet, (packet_type, session_id, stream_id, sequence, acknowledgement, payload)))
    except KeyError:
        raise _bad_prefix(prefix) from None
    # Slices stop at the end without a word, so a payload that is cut short shows here.
    if offset != end or not packets:
        raise WireError("wire-truncated", f"a train of {end} bytes ends inside a packet")
    return packets


def encode_authenticated(
    type: int,
    session_id: bytes,
    stream_id: int,
    sequence: int,
    acknowledgement: int,
    payload: Buffer,
    key: bytes,
) -> bytes:
    """Return a whole packet with its HMAC under ``key`` behind the payload."""
    header = encode_header(type | FLAG_HMAC, session_id, stream_id, sequence, acknowledgement, len(payload))
    covered = header + payload
    return covered + hmac.digest(key, covered, hashlib.sha256)


def decode_authenticated(view: Buffer, key: bytes) -> Packet:
    """Return the one packet with an HMAC under ``key`` that ``view`` holds; compared in constant time.

    Raises WireError: the reasons of :func:`decode`, and wire-bad-mac.
    """
    message = memoryview(view)
    packet = _decode_one(message, _TYPES_AUTHENTICATED, HMAC_LENGTH)
    covered, mac = message[:-HMAC_LENGTH], message[-HMAC_LENGTH:]
    if not hmac.compare_digest(hmac.digest(key, covered, hashlib.sha256), mac):
        raise WireError("wire-bad-mac")
    return packet


def peek(view: Buffer) -> Packet:
    """Return the one HANDSHAKE or RECONNECT packet in ``view``, with or without HMAC, *not authenticated*.

    For the first message of a leg, whose SessionID selects the key that verifies it.

    Raises WireError: the reasons of :func:`decode`, wire-unexpected-type, wire-too-long (over
    MAX_FIRST_MESSAGE).
    """
    message = memoryview(view)
    if len(message) > MAX_FIRST_MESSAGE:
        raise WireError("wire-too-long", f"{len(message)} bytes")
    authenticated = len(message) > 3 and message[3] & FLAG_HMAC
    packet = (
        _decode_one(message, _TYPES_AUTHENTICATED, HMAC_LENGTH)
        if authenticated
        else _decode_one(message, _TYPES_PLAIN, 0)
    )
    if packet.type not in (PacketType.HANDSHAKE, PacketType.RECONNECT):
        raise WireError("wire-unexpected-type", packet.type.name)
    return packet


def _decode_one(message: memoryview, types: dict[int, PacketType], trailer: int) -> Packet:
    """Return the packet that fills ``message`` up to ``trailer`` bytes of HMAC."""
    if len(message) < HEADER_LENGTH + trailer:
        raise WireError("wire-truncated", f"{len(message)} bytes are less than a header")
    prefix, session_id, stream_id, sequence, acknowledgement, length = _PREFIXED_HEADER.unpack_from(message)
    if prefix not in types:
        raise _bad_prefix(prefix)
    end = HEADER_LENGTH + length
    excess = len(message) - trailer - end
    if excess < 0:
        raise WireError("wire-truncated", f"{-excess} bytes are missing")
    if excess > 0:
        raise WireError("wire-trailing-bytes", f"{excess} bytes too many")
    payload = message[HEADER_LENGTH:end]
    return Packet(types[prefix], session_id, stream_id, sequence, acknowledgement, payload)


def _bad_prefix(prefix: int) -> WireError:
    """Return what is wrong with a magic, version and flags that the place does not allow."""
    if prefix >> 16 != MAGIC:
        return WireError("wire-bad-magic")
    if prefix >> 8 & 0xFF != VERSION:
        return WireError("wire-bad-version", f"version {prefix >> 8 & 0xFF}")
    if prefix in _TYPES_OF_LEGS:
        return WireError("wire-unexpected-type", _TYPES_OF_LEGS[prefix].name)
    return WireError("wire-bad-flags", f"flags {prefix & 0xFF:#04x}")
