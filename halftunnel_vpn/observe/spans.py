"""Spans of sessions and streams, with ids that both ends derive on their own (``protocol/trace_ids.py``).

The trace of a session holds its handshake and the legs that join; the trace of a stream its opening and first
byte. The parent of the exit's span is the client's span of the same name. A span holds no destination, no
name and no address.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import Decision, Sampler
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from halftunnel_vpn.protocol.keys import Direction, SessionKeys
from halftunnel_vpn.protocol.stream_messages import ResetCode, StreamKind
from halftunnel_vpn.protocol.trace_ids import SPAN_ID_LENGTH, TRACE_ID_LENGTH, TraceIds

HANDSHAKE: Final = "handshake"
JOIN: Final = "join"
OPEN_STREAM: Final = "open stream"
LOOK_UP: Final = "look up name"
DIAL: Final = "dial"
FIRST_BYTE: Final = "first byte"

_SESSION: Final = 0
"""Stands for the session where a stream has its number."""


class SpanOutlet(NamedTuple):
    """Where the spans of a process go, and which of them."""

    sampler: Sampler
    resource: Resource
    scope: InstrumentationScope
    # Takes a finished span. Must return at once.
    take: Callable[[ReadableSpan], None]
    # Whether handshakes and joins are recorded whatever the sampler says: they are few.
    keeps_sessions: bool

    def samples(self, trace_id: int) -> bool:
        """Return whether a trace is recorded. Both ends decide alike: by the trace id."""
        return self.sampler.should_sample(None, trace_id, HANDSHAKE).decision is not Decision.DROP


class SpanPlace(NamedTuple):
    """One span and its parent (0: none) in one trace; ``is_remote``: the parent is of the other end."""

    trace_id: int
    span_id: int
    parent_id: int = 0
    is_remote: bool = False


class SessionSpans:
    """Implements SessionTrace."""

    __slots__ = ("_ids", "_is_sampled", "_outlet", "_trace_id", "is_client", "log_fields")

    def __init__(self, outlet: SpanOutlet, keys: SessionKeys, *, is_client: bool) -> None:
        self._outlet = outlet
        self._ids = TraceIds(keys.secret)
        self._trace_id = self._ids.trace_id(_SESSION)
        self._is_sampled = outlet.keeps_sessions or outlet.samples(self._trace_id)
        self.is_client = is_client
        self.log_fields: Mapping[str, str] = {}
        if self._is_sampled:
            self.log_fields = _log_fields(self._trace_id, self.span_id(_SESSION, HANDSHAKE))

    def span_id(self, stream_id: int, name: str, *, of_client: bool | None = None) -> int:
        """Return the id of a span of this end, or of the end that is named."""
        side = "client" if (self.is_client if of_client is None else of_client) else "exit"
        return self._ids.span_id(stream_id, f"{side} {name}")

    def handshake(self, began: float, dialled: float) -> None:
        """Record the handshake, which ends now; on the client also its dials."""
        if not self._is_sampled:
            return
        own = self._place(HANDSHAKE, HANDSHAKE if not self.is_client else None)
        if self.is_client:
            self._record(DIAL, self._child(own, f"{DIAL} {HANDSHAKE}"), began, dialled, {})
        self._record(HANDSHAKE, own, began, time.monotonic(), {})

    def joined(self, direction: Direction, number: int, began: float, dialled: float) -> None:
        """Record a leg that joins now; on the client also its dial."""
        if not self._is_sampled:
            return
        way = direction.name.lower()
        attributes: dict[str, str | int] = {"halftunnel.direction": way, "halftunnel.leg": number}
        name = f"{JOIN} {way} {number}"
        own = self._place(name, HANDSHAKE if self.is_client else name)
        if self.is_client:
            self._record(DIAL, self._child(own, f"{DIAL} {way} {number}"), began, dialled, attributes)
        self._record(JOIN, own, began, time.monotonic(), attributes)

    def join_failed(self, direction: Direction, reason: str, began: float) -> None:
        """Record a leg that could not be opened."""
        if self._is_sampled:
            parent = self.span_id(_SESSION, HANDSHAKE)
            place = SpanPlace(self._trace_id, _random_id(SPAN_ID_LENGTH), parent)
            attributes = {"halftunnel.direction": direction.name.lower()}
            self._record(JOIN, place, began, time.monotonic(), attributes, reason)

    def stream(self, stream_id: int, kind: StreamKind) -> StreamSpans | None:
        """Return the spans of a stream that is being opened; None if it is not sampled."""
        trace_id = self._ids.trace_id(stream_id)
        if not self._outlet.samples(trace_id):
            return None
        return StreamSpans(self, self._outlet, trace_id, stream_id, kind)

    def _place(self, name: str, parent: str | None) -> SpanPlace:
        """Return the place of a span of this end; ``parent`` is one of the client."""
        above = 0 if parent is None else self.span_id(_SESSION, parent, of_client=True)
        return SpanPlace(self._trace_id, self.span_id(_SESSION, name), above, not self.is_client)

    def _child(self, own: SpanPlace, name: str) -> SpanPlace:
        return SpanPlace(self._trace_id, self.span_id(_SESSION, name), own.span_id)

    def _record(
        self,
        name: str,
        place: SpanPlace,
        began: float,
        ended: float,
        attributes: Mapping[str, str | int],
        error: str = "",
    ) -> None:
        kind = SpanKind.CLIENT if self.is_client else SpanKind.SERVER
        self._outlet.take(span(self._outlet, name, place, kind, (began, ended), attributes, error))


class StreamSpans:
    """Implements StreamTrace. Times are of the monotonic clock in seconds, 0 before the event."""

    __slots__ = (
        "_attributes",
        "_began",
        "_dialing_since",
        "_looking_up_since",
        "_opened_at",
        "_outlet",
        "_session",
        "_stream_id",
        "_trace_id",
    )

    def __init__(
        self, session: SessionSpans, outlet: SpanOutlet, trace_id: int, stream_id: int, kind: StreamKind
    ) -> None:
        self._session = session
        self._outlet = outlet
        self._trace_id = trace_id
        self._stream_id = stream_id
        self._attributes = {"halftunnel.stream.kind": kind.name.lower()}
        self._began = time.monotonic()
        self._looking_up_since = self._dialing_since = self._opened_at = 0.0

    @property
    def log_fields(self) -> Mapping[str, str]:
        """``trace_id`` and ``span_id`` of the span that opens the stream at this end."""
        return _log_fields(self._trace_id, self._session.span_id(self._stream_id, OPEN_STREAM))

    def looking_up(self) -> None:
        """Note that the exit looks up the name."""
        self._looking_up_since = time.monotonic()

    def dialing(self) -> None:
        """Note that the exit connects; what was looked up is found."""
        self._dialing_since = time.monotonic()
        if self._looking_up_since:
            self._record(LOOK_UP, SpanKind.CLIENT, self._looking_up_since)

    def opened(self) -> None:
        """Record that the stream is open."""
        self._opened_at = time.monotonic()
        if self._dialing_since:
            self._record(DIAL, SpanKind.CLIENT, self._dialing_since)
        self._record(OPEN_STREAM, self._kind, self._began)

    def refused(self, code: ResetCode) -> None:
        """Record that the stream was not opened."""
        reason = code.name.lower()
        if self._dialing_since:
            self._record(DIAL, SpanKind.CLIENT, self._dialing_since, reason)
        elif self._looking_up_since:
            self._record(LOOK_UP, SpanKind.CLIENT, self._looking_up_since, reason)
        self._record(OPEN_STREAM, self._kind, self._began, reason)

    def first_byte(self) -> None:
        """Record the wait for the first byte: since the request (client), since the connection (exit)."""
        since = self._began if self._session.is_client else self._opened_at
        self._record(FIRST_BYTE, SpanKind.INTERNAL, since)

    @property
    def _kind(self) -> SpanKind:
        return SpanKind.CLIENT if self._session.is_client else SpanKind.SERVER

    def _record(self, name: str, kind: SpanKind, began: float, error: str = "") -> None:
        session, stream_id = self._session, self._stream_id
        parent, is_remote = 0, False
        if name != OPEN_STREAM:
            parent = session.span_id(stream_id, OPEN_STREAM)
        elif not session.is_client:
            parent, is_remote = session.span_id(stream_id, OPEN_STREAM, of_client=True), True
        place = SpanPlace(self._trace_id, session.span_id(stream_id, name), parent, is_remote)
        times = began, time.monotonic()
        self._outlet.take(span(self._outlet, name, place, kind, times, self._attributes, error))


def failed_handshake(outlet: SpanOutlet, reason: str, began: float) -> None:
    """Record a handshake that has failed. It has no keys, so its ids are random, and the exit has none."""
    place = SpanPlace(_random_id(TRACE_ID_LENGTH), _random_id(SPAN_ID_LENGTH))
    if outlet.keeps_sessions or outlet.samples(place.trace_id):
        times = began, time.monotonic()
        outlet.take(span(outlet, HANDSHAKE, place, SpanKind.CLIENT, times, {}, reason))


def span(
    outlet: SpanOutlet,
    name: str,
    place: SpanPlace,
    kind: SpanKind,
    times: tuple[float, float],
    attributes: Mapping[str, str | int],
    error: str,
) -> ReadableSpan:
    """Return a finished span. ``times`` are its begin and end; ``error`` says why it failed, "" if not."""
    since = time.time_ns() - int(time.monotonic() * 1e9)
    parent = None
    if place.parent_id:
        parent = _context(place.trace_id, place.parent_id, is_remote=place.is_remote)
    return ReadableSpan(
        name,
        _context(place.trace_id, place.span_id, is_remote=False),
        parent,
        outlet.resource,
        {**attributes, "error.type": error} if error else dict(attributes),
        kind=kind,
        status=Status(StatusCode.ERROR) if error else Status(),
        start_time=since + int(times[0] * 1e9),
        end_time=since + int(times[1] * 1e9),
        instrumentation_scope=outlet.scope,
    )


def _context(trace_id: int, span_id: int, *, is_remote: bool) -> SpanContext:
    return SpanContext(trace_id, span_id, is_remote, TraceFlags(TraceFlags.SAMPLED))


def _log_fields(trace_id: int, span_id: int) -> Mapping[str, str]:
    return {"trace_id": f"{trace_id:032x}", "span_id": f"{span_id:016x}"}


def _random_id(length: int) -> int:
    return int.from_bytes(secrets.token_bytes(length), "big") or 1
