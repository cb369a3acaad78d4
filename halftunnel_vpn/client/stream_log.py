"""The log line of a stream that the client opens."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from halftunnel_vpn.protocol.stream_messages import OpenRequest
from halftunnel_vpn.protocol.trace_ports import trace_fields
from halftunnel_vpn.session.stream import Stream

log = logging.getLogger(__name__)


def log_opening(stream: Stream, request: OpenRequest, fields: Mapping[str, object]) -> None:
    """Log at ``debug`` that ``stream`` was opened; ``fields`` are those of its session."""
    if not log.isEnabledFor(logging.DEBUG):
        return
    log.debug(
        "stream opened: %s",
        request.kind.name.lower(),
        extra={
            **fields,
            **trace_fields(stream.trace),
            "stream": stream.stream_id,
            "private": {"destination": request.destination},
        },
    )
