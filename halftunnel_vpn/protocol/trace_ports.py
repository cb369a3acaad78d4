"""What sessions and streams report to a trace, as structural types (``observe/spans.py`` implements them).

An implementation has a clock of its own. Every call returns at once. ``began`` and ``dialled`` are times of
the monotonic clock in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from halftunnel_vpn.protocol.keys import Direction, SessionKeys
from halftunnel_vpn.protocol.stream_messages import ResetCode, StreamKind


class StreamTrace(Protocol):
    """The trace of one stream at one end; made when the stream is opened."""

    @property
    def log_fields(self) -> Mapping[str, str]:
        """The fields that connect a log line with the trace: ``trace_id`` and ``span_id``."""
        ...

    def looking_up(self) -> None:
        """The exit begins to look up the name of the destination."""
        ...

    def dialing(self) -> None:
        """The exit begins to connect to the destination."""
        ...

    def opened(self) -> None:
        """The stream is open: the exit has connected."""
        ...

    def refused(self, code: ResetCode) -> None:
        """The stream was over before it was open."""
        ...

    def first_byte(self) -> None:
        """The first byte of the destination has come (client) or is about to be sent (exit)."""
        ...


class SessionTrace(Protocol):
    """The traces of one session and of its streams, at one end."""

    @property
    def log_fields(self) -> Mapping[str, str]:
        """The fields that connect a log line with the trace of the session."""
        ...

    def handshake(self, began: float, dialled: float) -> None:
        """The handshake has ended. ``dialled``: when both legs were open; equal to ``began`` at the exit."""
        ...

    def joined(self, direction: Direction, number: int, began: float, dialled: float) -> None:
        """A further leg has joined. ``dialled``: when its WebSocket was open."""
        ...

    def join_failed(self, direction: Direction, reason: str, began: float) -> None:
        """A further leg could not be opened (client)."""
        ...

    def stream(self, stream_id: int, kind: StreamKind) -> StreamTrace | None:
        """Return the trace of a stream that is being opened; None if it is not sampled."""
        ...


class Tracing(Protocol):
    """Makes traces of sessions."""

    def session(self, keys: SessionKeys, *, is_client: bool) -> SessionTrace | None:
        """Return the traces of a session with these keys; None while traces are off."""
        ...

    def handshake_failed(self, reason: str, began: float) -> None:
        """A handshake has failed (client)."""
        ...


class _NoTracing:
    def session(self, keys: SessionKeys, *, is_client: bool) -> SessionTrace | None:
        return None

    def handshake_failed(self, reason: str, began: float) -> None:
        """Report nothing."""


NO_TRACING: Final = _NoTracing()


def trace_fields(trace: SessionTrace | StreamTrace | None) -> Mapping[str, str]:
    """Return the log fields of ``trace``; none without one."""
    return {} if trace is None else trace.log_fields
