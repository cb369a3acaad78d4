"""Every metric that a process of ours may show: name, kind, labels and meaning (docs/OPERATE.md lists them).

Names follow the rules of Prometheus: base units, ``_total`` for counters, ``_info`` for facts.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

PREFIX = "halftunnel_"


class MetricKind(Enum):
    """The types of Prometheus that we use."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


class ShownBy(Enum):
    """Which processes show a metric."""

    BOTH = "both"
    CLIENT = "client"
    EXIT = "exit"


class Described(NamedTuple):
    """One metric. ``name`` is without PREFIX; a counter's ends in ``_total``."""

    name: str
    kind: MetricKind
    side: ShownBy
    labels: tuple[str, ...]
    meaning: str


def _gauge(name: str, side: ShownBy, meaning: str, *labels: str) -> Described:
    return Described(name, MetricKind.GAUGE, side, labels, meaning)


def _counter(name: str, side: ShownBy, meaning: str, *labels: str) -> Described:
    return Described(name, MetricKind.COUNTER, side, labels, meaning)


_ALL = (
    _counter("packets_sent_total", ShownBy.BOTH, "Packets of the tunnel sent on a path.", "path"),
    _counter("packets_received_total", ShownBy.BOTH, "Packets of the tunnel received on a path.", "path"),
    _counter("bytes_total", ShownBy.BOTH, "Bytes of WebSocket payload on a path.", "path", "direction"),
    _counter(
        "padding_bytes_total",
        ShownBy.BOTH,
        "The part of it that is padding.",
        "path",
        "direction",
    ),
    _counter("dropped_total", ShownBy.BOTH, "What was dropped or refused.", "component", "reason"),
    _counter("events_total", ShownBy.BOTH, "Events.", "component", "event"),
    _gauge("active_sessions", ShownBy.BOTH, "Sessions that are open."),
    _gauge("legs", ShownBy.BOTH, "Legs that are open.", "path"),
    _gauge("leg_round_trip_seconds", ShownBy.BOTH, "Median round trip of the open legs of a path.", "path"),
    _gauge("build_info", ShownBy.BOTH, "Always 1; the label is the version that runs.", "version"),
    Described(
        "stream_latency_seconds",
        MetricKind.HISTOGRAM,
        ShownBy.BOTH,
        ("kind",),
        "From the opening of a stream to the first byte of its destination.",
    ),
    _gauge(
        "circuit_state",
        ShownBy.CLIENT,
        "1 for the state that the circuit breaker of a URL is in, 0 for the others.",
        "path",
        "domain",
        "state",
    ),
    _gauge(
        "tunnel_state",
        ShownBy.CLIENT,
        "1 for the state that the tunnel is in, 0 for the others.",
        "state",
    ),
    _gauge("kill_switch_active", ShownBy.CLIENT, "1 while the rules of the kill switch are in the kernel."),
    _gauge("flows", ShownBy.CLIENT, "Flows that are open.", "kind"),
    _gauge("proxy_connections", ShownBy.CLIENT, "Programs that use `htvpn proxy` now."),
    _gauge("streams", ShownBy.EXIT, "Streams that have a socket."),
    _gauge("memory_bytes", ShownBy.EXIT, "Memory that clients hold."),
    _gauge("memory_limit_bytes", ShownBy.EXIT, "Memory that they may hold."),
    _gauge("tcp_memory_bytes", ShownBy.EXIT, "Buffers of all TCP sockets of the machine."),
    _gauge("ready", ShownBy.EXIT, "1 if a check of /readyz passed when it was made last, 0 if not.", "check"),
    _gauge(
        "certificate_expiry_timestamp_seconds",
        ShownBy.EXIT,
        "When the certificate of a listener expires, in seconds since 1970.",
        "path",
    ),
    _counter(
        "client_bytes_total",
        ShownBy.EXIT,
        "Bytes of a client, from and to destinations; only with [metrics] clients = true.",
        "client",
        "direction",
    ),
)

METRICS = {described.name: described for described in _ALL}
"""By name, without PREFIX."""
