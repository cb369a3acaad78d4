"""The encrypted payloads of the two handshake messages (docs/PROTOCOL.md, "Handshake").

Fixed fields first, then items of type (2 bytes), length (2 bytes) and value. Type 0 is padding; an item of
another type is left alone, so that a later version can add some.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from halftunnel_vpn.errors import HandshakeError
from halftunnel_vpn.protocol.shaping_terms import ShapingTerms
from halftunnel_vpn.protocol.wire import MAX_FIRST_MESSAGE, VERSION, Buffer, as_uuid4

ITEM_PADDING = 0
"""Type of a padding item; its value is ignored."""

ITEM_LAST_TIMESTAMP = 1
"""Type of an item of an ExitHello: the last timestamp that the exit accepted from this client, 8 bytes."""

ITEM_SHAPING = 2
"""Type of an item of either hello: ShapingTerms, asked for by the client and granted by the exit."""

ITEM_INVITATION = 3
"""Type of an item of a ClientHello: the secret of an invitation, 16 bytes."""

READS_STALE_TIME = 0x01
"""Capability of a client: it understands ExitStatus.STALE_TIME. Others get no answer in that case."""

READS_REFUSALS = 0x04
"""Capability of a client: it understands the statuses of :data:`REFUSALS`. Others get OVERLOADED."""

OPENS_URGENT_LEGS = 0x08
"""Capability of a client: it understands KeepaliveKind.WANTS_LEG. Other clients are not asked."""

TAKES_HOP_LIMITS = 0x01
"""Capability of an exit: the OPEN of a TCP stream may carry a hop limit."""

_CLIENT = struct.Struct(">B16s16sIQ16s")
_EXIT = struct.Struct(">BQ16sIIIIB")
_ITEM = struct.Struct(">HH")
_TIMESTAMP = struct.Struct(">Q")

EXIT_HAS_IPV6 = 0x01
"""Flag of an ExitHello: the exit reaches IPv6 destinations."""


class ExitStatus(IntEnum):
    """Whether the exit grants a session."""

    OK = 0
    CLOCK_SKEW = 1
    OVERLOADED = 2
    SESSION_LIMIT = 3
    STALE_TIME = 4
    """The client's timestamp is not later than one that the exit has accepted before."""
    DISABLED = 5
    """The operator has disabled the client."""
    EXPIRED = 6
    """The last day of the client is over."""
    QUOTA_USED_UP = 7
    """The client has used up the bytes of this month."""
    INVITATION_USED = 8
    """The invitation that the client shows has admitted a client already."""
    INVITATION_EXPIRED = 9
    """The time of that invitation is over."""


REFUSALS = (ExitStatus.DISABLED, ExitStatus.EXPIRED, ExitStatus.QUOTA_USED_UP)
"""Statuses that concern this client alone, whatever it does."""

INVITATION_REFUSALS = (ExitStatus.INVITATION_USED, ExitStatus.INVITATION_EXPIRED, ExitStatus.OVERLOADED)
"""Statuses for a client that is not listed and shows the secret of an invitation."""


@dataclass(frozen=True, slots=True)
class ClientHello:
    """The payload of message 1.

    ``session_id``, a UUIDv4, names the session in every packet inside records. ``join_token``, of the same
    form, is what the first downstream leg shows. ``timestamp`` is wall time in microseconds since 1970,
    ``nonce`` 16 fresh bytes. ``capabilities`` is a set of bits, READS_STALE_TIME and TAKES_PADDING.
    ``shaping`` is what the client asks for; None: nothing. ``invitation`` is the secret of an invitation, for
    a client whose key the exit does not know yet; empty: none.
    """

    session_id: bytes
    join_token: bytes
    timestamp: int
    nonce: bytes
    capabilities: int = 0
    version: int = VERSION
    shaping: ShapingTerms | None = None
    invitation: bytes = b""

    def encode(self, padding: int = 0) -> bytes:
        """Return the payload, with ``padding`` bytes of padding (and 4 that announce it).

        Raises HandshakeError handshake-too-long (too much padding).
        """
        fixed = _CLIENT.pack(
            self.version, self.session_id, self.join_token, self.capabilities, self.timestamp, self.nonce
        )
        if self.invitation:
            fixed += _ITEM.pack(ITEM_INVITATION, len(self.invitation)) + self.invitation
        return fixed + _encode_shaping(self.shaping) + _encode_padding(padding)

    @classmethod
    def decode(cls, payload: Buffer) -> ClientHello:
        """Reverse of :meth:`encode`. Raises HandshakeError: handshake-malformed, handshake-bad-version."""
        if len(payload) < _CLIENT.size:
            raise HandshakeError("handshake-malformed", "a client hello is cut short")
        version, session_id, join_token, capabilities, timestamp, nonce = _CLIENT.unpack_from(payload)
        if version != VERSION:
            raise HandshakeError("handshake-bad-version", f"version {version}")
        if session_id != as_uuid4(session_id) or join_token != as_uuid4(join_token):
            raise HandshakeError("handshake-malformed", "an identifier is not a UUIDv4")
        items = _read_items(payload, _CLIENT.size)
        invitation = bytes(items.get(ITEM_INVITATION, b""))
        shaping = _shaping_in(items)
        return cls(session_id, join_token, timestamp, nonce, capabilities, version, shaping, invitation)


@dataclass(frozen=True, slots=True)
class ExitHello:
    """The payload of message 2.

    ``wall_time`` is the exit's, in microseconds since 1970; ``nonce`` 16 fresh bytes; ``max_streams`` the
    streams that may be open at once; ``stream_window`` the credit in bytes that every byte stream of the
    client begins with; ``idle_timeout`` the seconds after which a session without legs is forgotten.
    ``capabilities`` is a set of bits, TAKES_HOP_LIMITS and TAKES_PADDING.
    ``last_timestamp`` goes with STALE_TIME: the client's next timestamp must be later; 0: not sent.
    ``shaping`` is what the exit grants to a client that has asked for some; None: nothing.
    """

    status: ExitStatus
    wall_time: int
    nonce: bytes
    max_streams: int = 0
    stream_window: int = 0
    idle_timeout: int = 0
    has_ipv6: bool = False
    capabilities: int = 0
    last_timestamp: int = 0
    shaping: ShapingTerms | None = None

    def encode(self, padding: int = 0) -> bytes:
        """Return the payload, with ``padding`` bytes of padding (and 4 that announce it).

        Raises HandshakeError handshake-too-long (too much padding).
        """
        fixed = _EXIT.pack(
            self.status,
            self.wall_time,
            self.nonce,
            self.capabilities,
            self.max_streams,
            self.stream_window,
            self.idle_timeout,
            EXIT_HAS_IPV6 if self.has_ipv6 else 0,
        )
        if self.last_timestamp:
            item = _ITEM.pack(ITEM_LAST_TIMESTAMP, _TIMESTAMP.size)
            fixed += item + _TIMESTAMP.pack(self.last_timestamp)
        return fixed + _encode_shaping(self.shaping) + _encode_padding(padding)

    @classmethod
    def decode(cls, payload: Buffer) -> ExitHello:
        """Reverse of :meth:`encode`; flags unknown here are left alone.

        Raises HandshakeError: handshake-malformed.
        """
        if len(payload) < _EXIT.size:
            raise HandshakeError("handshake-malformed", "an exit hello is cut short")
        status, wall_time, nonce, capabilities, max_streams, stream_window, idle_timeout, flags = (
            _EXIT.unpack_from(payload)
        )
        known = _STATUSES.get(status)
        if known is None:
            raise HandshakeError("handshake-malformed", f"status {status}")
        last_timestamp = 0
        items = _read_items(payload, _EXIT.size)
        found = items.get(ITEM_LAST_TIMESTAMP)
        if found is not None:
            if len(found) != _TIMESTAMP.size:
                raise HandshakeError("handshake-malformed", f"a timestamp of {len(found)} bytes")
            (last_timestamp,) = _TIMESTAMP.unpack(found)
        return cls(
            known,
            wall_time,
            nonce,
            max_streams,
            stream_window,
            idle_timeout,
            bool(flags & EXIT_HAS_IPV6),
            capabilities,
            last_timestamp,
            _shaping_in(items),
        )


_STATUSES = {int(status): status for status in ExitStatus}


def _encode_shaping(terms: ShapingTerms | None) -> bytes:
    if terms is None:
        return b""
    value = terms.encode()
    return _ITEM.pack(ITEM_SHAPING, len(value)) + value


def _shaping_in(items: dict[int, bytes]) -> ShapingTerms | None:
    found = items.get(ITEM_SHAPING)
    return None if found is None else ShapingTerms.decode(found)


def _encode_padding(length: int) -> bytes:
    """One item of ``length`` zero bytes: encryption hides what they are, only their number is seen."""
    if length > MAX_FIRST_MESSAGE:
        raise HandshakeError("handshake-too-long", f"{length} bytes of padding")
    return _ITEM.pack(ITEM_PADDING, length) + bytes(length)


def _read_items(payload: Buffer, offset: int) -> dict[int, bytes]:
    """Return the values by type, the last one of each; every item must be whole, known or not."""
    found: dict[int, bytes] = {}
    end = len(payload)
    while offset < end:
        if end - offset < _ITEM.size:
            raise HandshakeError("handshake-malformed", "an item is cut short")
        type_, length = _ITEM.unpack_from(payload, offset)
        offset += _ITEM.size
        found[type_] = bytes(payload[offset : offset + length])
        offset += length
    if offset != end:
        raise HandshakeError("handshake-malformed", "an item is cut short")
    return found
