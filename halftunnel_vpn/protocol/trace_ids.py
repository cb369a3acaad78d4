"""The ids of traces. Each end derives them on its own, so nothing is added to the wire.

trace key = HKDF(session secret, "", "halftunnel trace")
trace id  = HMAC(trace key, "trace" || stream), the first 16 bytes
span id   = HMAC(trace key, "span" || stream || name), the first 8 bytes

``stream`` is the number of a stream in 4 bytes, big-endian; 0 stands for the session. The ids have the size
of W3C Trace Context. They reveal neither the session's UUID nor its keys.
"""

from __future__ import annotations

import hashlib
import hmac
import struct

from halftunnel_vpn.protocol.keys import KEY_LENGTH, hkdf

TRACE_ID_LENGTH = 16
SPAN_ID_LENGTH = 8

_STREAM = struct.Struct(">I")


class TraceIds:
    """The trace and span ids of one session, as integers; never 0, which W3C Trace Context forbids."""

    __slots__ = ("_key",)

    def __init__(self, session_secret: bytes) -> None:
        self._key = hkdf(session_secret, b"", b"halftunnel trace", KEY_LENGTH)

    def trace_id(self, stream_id: int) -> int:
        """Return the trace id of a stream, or of the session (0)."""
        return self._id(b"trace" + _STREAM.pack(stream_id), TRACE_ID_LENGTH)

    def span_id(self, stream_id: int, name: str) -> int:
        """Return the id of the span ``name`` in the trace of a stream, or of the session (0)."""
        return self._id(b"span" + _STREAM.pack(stream_id) + name.encode(), SPAN_ID_LENGTH)

    def _id(self, message: bytes, length: int) -> int:
        return int.from_bytes(hmac.digest(self._key, message, hashlib.sha256)[:length], "big") or 1
