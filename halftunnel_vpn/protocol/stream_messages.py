"""Payloads of OPEN, RESET, ACK and KEEPALIVE packets (docs/PROTOCOL.md, "Streams" and "Keepalive").

DATA carries the stream's own bytes (byte streams) or a run (:mod:`halftunnel_vpn.protocol.datagram`);
FIN carries nothing.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

from halftunnel_vpn.errors import WireError
from halftunnel_vpn.protocol.host_encoding import FAMILY_NAME, Host, decode_host, encode_host
from halftunnel_vpn.protocol.wire import Buffer, PacketType, encode_header


class StreamKind(IntEnum):
    """What a stream stands for at the exit."""

    TCP = 1
    UDP = 2
    ICMP = 3
    DNS = 4


class ResetCode(IntEnum):
    """Why a stream ended before its time, or was never opened; on stream 0, why the session ends."""

    NORMAL = 0
    REFUSED = 1
    HOST_UNREACHABLE = 2
    NETWORK_UNREACHABLE = 3
    TIMED_OUT = 4
    DENIED = 5
    """The exit's egress policy forbids it."""
    NAME_NOT_FOUND = 6
    LIMIT = 7
    """A limit of the session, of the client or of the exit is reached."""
    PROTOCOL_ERROR = 8
    SHUTDOWN = 9
    """The sender shuts down cleanly."""
    CONNECTION_RESET = 10
    HOP_LIMIT_EXCEEDED = 11
    """A router on the way discarded the SYN of a stream whose OPEN has a hop limit."""


class KeepaliveKind(IntEnum):
    """What a keepalive is for."""

    PING = 1
    PONG = 2
    RETIRE = 3
    """Send nothing new on the leg whose number is ``id``, and close it when all that it carried is
    acknowledged, or after ``sent_us`` microseconds."""
    URGENT = 4
    """Send only what is urgent on the leg whose number is ``id``, as long as there is another (client)."""
    WANTS_LEG = 5
    """The path of the leg whose number is ``id`` loses: open a further leg for what is urgent (exit)."""


_OPEN_REQUEST: Final = struct.Struct(">BBHI")  # kind, family, port, window
_OPEN_REPLY: Final = struct.Struct(">IHB")  # window, port, family
_CREDIT: Final = struct.Struct(">Q")
_KEEPALIVE: Final = struct.Struct(">BIQQH")  # kind, id, sent_us, records_received, interval

MAX_TOLD_INTERVAL: Final = 6553.5
"""Seconds: the longest keepalive interval that can be encoded."""

MAX_HOP_LIMIT: Final = 32
"""The largest hop limit that an OPEN carries: larger ones are no traceroute's."""

KEEPALIVE_LENGTH: Final = _KEEPALIVE.size
"""Bytes of a keepalive without padding."""


class OpenRequest(NamedTuple):
    """What the client asks the exit to open.

    A TCP stream names a host (4 or 16 bytes, or a name in IDNA ASCII) and a port. The other kinds need
    neither: ``b""`` and 0 leave the choice to the exit. ``window`` is the credit in bytes with which the exit
    may begin to send. ``hop_limit`` is that of the SYN to the destination of a TCP stream, at most
    MAX_HOP_LIMIT; 0: the exit's own choice.
    """

    kind: StreamKind
    host: Host
    port: int
    window: int
    hop_limit: int = 0

    @property
    def destination(self) -> str:
        """Host and port for the log at ``debug``; empty for a kind that names none here."""
        if not self.host:
            return ""
        host = self.host if isinstance(self.host, str) else str(ipaddress.ip_address(bytes(self.host)))
        return f"{host} port {self.port}"

    def with_window(self, window: int) -> OpenRequest:
        """Return the same request with this window."""
        return OpenRequest(self.kind, self.host, self.port, window, self.hop_limit)

    def encode(self) -> bytes:
        """Return the payload of the client's OPEN packet. Raises WireError: open-bad-name, open-bad-address,
        open-no-destination."""
        family, host = encode_host(self.host, "open")
        self._check()
        tail = bytes((self.hop_limit,)) if self.hop_limit else b""
        return _OPEN_REQUEST.pack(self.kind, family, self.port, self.window) + host + tail

    @classmethod
    def decode(cls, payload: Buffer) -> OpenRequest:
        """Reverse of :meth:`encode`. Raises WireError: open-truncated, open-bad-kind, open-bad-family,
        open-bad-name, open-no-destination, open-trailing-bytes."""
        if len(payload) < _OPEN_REQUEST.size:
            raise WireError("open-truncated", f"{len(payload)} bytes")
        kind, family, port, window = _OPEN_REQUEST.unpack_from(payload)
        if kind not in _STREAM_KINDS:
            raise WireError("open-bad-kind", f"kind {kind}")
        host, end = decode_host(payload, _OPEN_REQUEST.size, family, "open")
        hop_limit = 0
        if end + 1 == len(payload) and kind == StreamKind.TCP and 0 < payload[end] <= MAX_HOP_LIMIT:
            hop_limit = payload[end]
            end += 1
        if end != len(payload):
            raise WireError("open-trailing-bytes", f"{len(payload) - end} bytes")
        request = cls(_STREAM_KINDS[kind], host, port, window, hop_limit)
        request._check()
        return request

    def _check(self) -> None:
        if self.kind is StreamKind.TCP and not (self.host and self.port):
            raise WireError("open-no-destination")


class OpenReply(NamedTuple):
    """The exit's answer to an OPEN that it could serve.

    ``window`` is the credit in bytes the client has on this stream from now on, in place of the initial
    window of the handshake where it is larger. ``address`` (4 or 16 bytes, ``b""`` if not told) and ``port``
    are those of the exit's socket.
    """

    window: int
    address: bytes = b""
    port: int = 0

    def encode(self) -> bytes:
        """Return the payload of the exit's OPEN packet. Raises WireError: open-bad-address."""
        family, address = encode_host(self.address, "open")
        return _OPEN_REPLY.pack(self.window, self.port, family) + address

    @classmethod
    def decode(cls, payload: Buffer) -> OpenReply:
        """Reverse of :meth:`encode`. Raises WireError: open-truncated, open-bad-family,
        open-trailing-bytes."""
        if len(payload) < _OPEN_REPLY.size:
            raise WireError("open-truncated", f"{len(payload)} bytes")
        window, port, family = _OPEN_REPLY.unpack_from(payload)
        if family == FAMILY_NAME:
            raise WireError("open-bad-family", "a socket has no name")
        address, end = decode_host(payload, _OPEN_REPLY.size, family, "open")
        if end != len(payload):
            raise WireError("open-trailing-bytes", f"{len(payload) - end} bytes")
        assert isinstance(address, bytes)
        return cls(window, address, port)


@dataclass(frozen=True, slots=True)
class Keepalive:
    """A sign of life on one leg, either way; padding of any length may follow it.

    A PONG repeats the ``id`` and ``sent_us`` (microseconds of the asker's own clock) of the PING it answers.
    ``records_received`` counts the records that the sender has opened on this leg. ``interval`` is the
    longest time in seconds from one PING of the sender to the next, in tenths on the wire; 0: not told.
    """

    kind: KeepaliveKind
    id: int
    sent_us: int
    records_received: int
    interval: float = 0.0

    def encode(self, padding: bytes = b"") -> bytes:
        """Return the payload of a KEEPALIVE packet."""
        tenths = round(min(self.interval, MAX_TOLD_INTERVAL) * 10)
        return _KEEPALIVE.pack(self.kind, self.id, self.sent_us, self.records_received, tenths) + padding

    @classmethod
    def decode(cls, payload: Buffer) -> Keepalive:
        """Reverse of :meth:`encode`. Raises WireError: keepalive-truncated, keepalive-bad-kind."""
        if len(payload) < KEEPALIVE_LENGTH:
            raise WireError("keepalive-truncated", f"{len(payload)} bytes")
        kind, id, sent_us, records_received, tenths = _KEEPALIVE.unpack_from(payload)
        if kind not in _KEEPALIVE_KINDS:
            raise WireError("keepalive-bad-kind", f"kind {kind}")
        return cls(_KEEPALIVE_KINDS[kind], id, sent_us, records_received, tenths / 10)


def encode_credit(limit: int) -> bytes:
    """Return the payload of an ACK packet: how many payload bytes the peer may send on the stream in all."""
    return _CREDIT.pack(limit)


def decode_credit(payload: Buffer) -> int:
    """Reverse of :func:`encode_credit`. Raises WireError: ack-bad-length."""
    if len(payload) != _CREDIT.size:
        raise WireError("ack-bad-length", f"{len(payload)} bytes")
    limit: int = _CREDIT.unpack_from(payload)[0]
    return limit


def encode_reset(code: ResetCode, offender: bytes = b"") -> bytes:
    """The payload of a RESET packet. ``offender`` goes with HOP_LIMIT_EXCEEDED: the router's address."""
    return bytes((code,)) + offender


def encode_goodbye(session_id: bytes, code: ResetCode) -> bytes:
    """Return the packet that ends a session: RESET on stream 0."""
    return encode_header(PacketType.RESET, session_id, 0, 0, 0, 1) + encode_reset(code)


def decode_reset(payload: Buffer) -> ResetCode:
    """Reverse of :func:`encode_reset`; a code of a later version reads as CONNECTION_RESET.

    Raises WireError: reset-bad-length.
    """
    length = len(payload)
    if length != 1 and not (length in _OFFENDER_LENGTHS and payload[0] == ResetCode.HOP_LIMIT_EXCEEDED):
        raise WireError("reset-bad-length", f"{length} bytes")
    return _RESET_CODES.get(payload[0], ResetCode.CONNECTION_RESET)


def decode_offender(payload: Buffer) -> bytes:
    """Return the address (4 or 16 bytes, or none) of the router that a RESET names."""
    return bytes(payload[1:])


# Dictionaries answer faster than calling the enumeration, and without an exception for a stranger.
_STREAM_KINDS: Final = {int(kind): kind for kind in StreamKind}
_OFFENDER_LENGTHS: Final = (5, 17)
_RESET_CODES: Final = {int(code): code for code in ResetCode}
_KEEPALIVE_KINDS: Final = {int(kind): kind for kind in KeepaliveKind}
