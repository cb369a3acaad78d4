"""Trace and span ids: the same at both ends, different for everything else, and silent about the session."""

from __future__ import annotations

import hashlib
import hmac

from halftunnel_vpn.protocol.keys import SessionKeys, hkdf, log_id
from halftunnel_vpn.protocol.trace_ids import TraceIds

SECRET = bytes(range(32))


def test_ids_follow_from_the_session_secret_as_documented():
    key = hkdf(SECRET, b"", b"halftunnel trace", 32)
    trace = hmac.digest(key, b"trace" + bytes((0, 0, 1, 2)), hashlib.sha256)
    span = hmac.digest(key, b"span" + bytes((0, 0, 1, 2)) + b"exit dial", hashlib.sha256)
    ids = TraceIds(SECRET)
    assert ids.trace_id(0x102) == int.from_bytes(trace[:16], "big")
    assert ids.span_id(0x102, "exit dial") == int.from_bytes(span[:8], "big")


def test_ids_do_not_change():
    """An end of an earlier version must find the same ones."""
    ids = TraceIds(SECRET)
    assert f"{ids.trace_id(0):032x}" == "041d2814d77ede97c46ff0e7a6492a17"
    assert f"{ids.trace_id(7):032x}" == "c9bf8a4385013425239e7016fb7329d0"
    assert f"{ids.span_id(7, 'client open stream'):016x}" == "3661fe5952f99279"


def test_streams_spans_and_sessions_have_ids_of_their_own():
    found = {
        *(TraceIds(secret).trace_id(stream) for secret in (SECRET, bytes(32)) for stream in range(500)),
        *(TraceIds(SECRET).span_id(stream, name) for stream in range(500) for name in ("client a", "exit a")),
    }
    assert len(found) == 2000 and 0 not in found


def test_nothing_of_the_session_shows_in_an_id():
    ids = TraceIds(SECRET)
    text = f"{ids.trace_id(0):032x}{ids.span_id(0, 'client handshake'):016x}"
    assert SECRET.hex()[:8] not in text and log_id(bytes(16)) not in text
    assert hkdf(SECRET, b"", b"halftunnel trace", 32) not in (
        SECRET,
        *SessionKeys(SECRET)._join_keys.values(),
        *SessionKeys(SECRET)._label_keys.values(),
    )
