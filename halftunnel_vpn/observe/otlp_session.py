"""What one start of the export makes: the threads, the sampler, and the traces of sessions."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client.metrics_core import Metric

from halftunnel_vpn.config.shared import TelemetryConfig
from halftunnel_vpn.observe.otlp_export import (
    Hold,
    MetricExport,
    SpanExport,
    Tally,
    divert_library_log,
    resource_of,
    sampler_of,
)
from halftunnel_vpn.observe.otlp_metrics import snapshot
from halftunnel_vpn.observe.spans import SessionSpans, SpanOutlet, failed_handshake
from halftunnel_vpn.protocol.keys import SessionKeys

SCOPE = "halftunnel_vpn"


class Exporting:
    """The threads of the export and what they export. The OTEL_ variables of ``environ`` come first.

    May raise anything that the library raises for its variables.
    """

    def __init__(
        self,
        config: TelemetryConfig,
        service: str,
        version: str,
        tally: Tally,
        environ: Mapping[str, str],
        *,
        with_spans: bool,
        with_metrics: bool,
    ) -> None:
        divert_library_log()
        self.hold = Hold()
        self._began = time.time_ns()
        self._resource = resource_of(service, version)
        self._scope = InstrumentationScope(SCOPE, version)
        self._spans: SpanExport | None = None
        self._metrics: MetricExport | None = None
        self._outlet: SpanOutlet | None = None
        if with_spans:
            self._spans = SpanExport(_endpoint(config, "TRACES", environ), self.hold, tally)
            self._outlet = SpanOutlet(
                sampler_of(config.sample, environ),
                self._resource,
                self._scope,
                self._spans.take,
                keeps_sessions=not environ.get("OTEL_TRACES_SAMPLER"),
            )
        if with_metrics:
            self._metrics = MetricExport(_endpoint(config, "METRICS", environ), self.hold, tally)

    def session(self, keys: SessionKeys, *, is_client: bool) -> SessionSpans | None:
        """Return the spans of a session with these keys; None without spans."""
        return None if self._outlet is None else SessionSpans(self._outlet, keys, is_client=is_client)

    def handshake_failed(self, reason: str, began: float) -> None:
        """Record a handshake that has failed."""
        if self._outlet is not None:
            failed_handshake(self._outlet, reason, began)

    def offer(self, families: Iterable[Metric]) -> None:
        """Send the metrics as they are now."""
        if self._metrics is not None:
            times = self._began, time.time_ns()
            self._metrics.offer(snapshot(families, self._resource, self._scope, times))

    def flush(self) -> None:
        """Send what waits. Blocks; call it in a thread of its own."""
        for part in (self._spans, self._metrics):
            if part is not None:
                part.flush()

    def close(self) -> None:
        """End the threads once their requests are over. Blocks; call it in a thread of its own."""
        for part in (self._spans, self._metrics):
            if part is not None:
                part.close()


def _endpoint(config: TelemetryConfig, signal: str, environ: Mapping[str, str]) -> str | None:
    """Return the configured URL of the collector; None where the environment has one, or nothing has."""
    names = "OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"
    if config.endpoint is None or any(environ.get(name, "").strip() for name in names):
        return None
    return config.endpoint
