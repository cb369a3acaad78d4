"""The export to a collector: OTLP over HTTP, in two threads of its own, one for spans and one for metrics.

Nothing here blocks the caller. What the collector does not take is dropped and counted.
"""

from __future__ import annotations

import logging
import queue
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

import requests
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, TraceIdRatioBased

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.observe.otlp_bounds import MAX_ANSWER, MAX_SPAN_BATCH, MAX_SPANS

log = logging.getLogger(__name__)

_HEADER_READER: Final = "opentelemetry.util.re"

_USER_INFO: Final = re.compile(r"//[^/\s@]*@")
"""The user and the password of a URL."""


class Tally:
    """Counts of any thread. They are added to ``counters`` when these are read, by the thread that reads."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._lock = threading.Lock()
        self._dropped: dict[str, int] = {}
        self._counted: dict[str, int] = {}
        # Whether the last request of each kind failed.
        self._is_failing: dict[str, bool] = {}
        counters.add_refresher(self._report)

    def drop(self, reason: str, count: int) -> None:
        """Count drops for ``reason``."""
        with self._lock:
            self._dropped[reason] = self._dropped.get(reason, 0) + count

    def sent(self, what: str, count: int, *, is_taken: bool) -> None:
        """Count what was sent, as exported or as dropped; log a change."""
        if is_taken:
            with self._lock:
                self._counted[f"{what}-exported"] = self._counted.get(f"{what}-exported", 0) + count
        else:
            self.drop(f"{what}-not-taken", count)
        if self._is_failing.get(what, False) is is_taken:
            self._is_failing[what] = not is_taken
            if is_taken:
                log.info("the collector takes %s again", what)
            else:
                log.warning(
                    "the collector does not take %s, and they are dropped and counted; check [telemetry] "
                    "endpoint and the OTEL_EXPORTER_OTLP_ variables",
                    what,
                )

    def _report(self) -> None:
        with self._lock:
            dropped, self._dropped = self._dropped, {}
            counted, self._counted = self._counted, {}
        for reason, count in dropped.items():
            self._counters.drop(reason, count)
        for name, count in counted.items():
            self._counters.count(name, count)


class Hold:
    """Holds the threads of the export back until it is released, or ended."""

    def __init__(self) -> None:
        self._settled = threading.Event()
        self.is_ended = False

    def release(self) -> None:
        """Let requests be sent."""
        self._settled.set()

    def end(self) -> None:
        """Let no further request be sent."""
        self.is_ended = True
        self._settled.set()

    def may_send(self) -> bool:
        """Wait until it is released or ended; return whether a request may be sent."""
        self._settled.wait()
        return not self.is_ended


class _HeldExporter(SpanExporter):
    """Passes batches on while they may be sent, and counts what becomes of them."""

    def __init__(self, exporter: SpanExporter, hold: Hold, tally: Tally) -> None:
        self._exporter = exporter
        self._hold = hold
        self._tally = tally
        # Spans of which it is known what became of them.
        self.settled = 0
        self._is_shut_down = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch, in the thread of the processor."""
        result = SpanExportResult.FAILURE
        if self._hold.may_send():
            result = self._exporter.export(spans)
            self._tally.sent("spans", len(spans), is_taken=result is SpanExportResult.SUCCESS)
        else:
            self._tally.drop("spans-too-late", len(spans))
        self.settled += len(spans)
        return result

    def shutdown(self) -> None:
        """Stop a running request from being repeated. Repeatable."""
        if not self._is_shut_down:
            self._is_shut_down = True
            self._exporter.shutdown()


class SpanExport:
    """Sends spans in batches. At most MAX_SPANS wait."""

    def __init__(self, endpoint: str | None, hold: Hold, tally: Tally) -> None:
        """``endpoint`` is the URL of the collector; None: that of the environment, or the default."""
        url = None if endpoint is None else f"{endpoint}/v1/traces"
        exporter = OTLPSpanExporter(url, session=_BoundedSession())
        self._hold = hold
        self._tally = tally
        self._exporter = _HeldExporter(exporter, hold, tally)
        self._processor = BatchSpanProcessor(
            self._exporter, max_queue_size=MAX_SPANS, max_export_batch_size=MAX_SPAN_BATCH
        )
        self._accepted = 0

    def take(self, span: ReadableSpan) -> None:
        """Queue a span; drop and count it if too many wait."""
        if self._hold.is_ended:
            self._tally.drop("spans-too-late", 1)
        elif self._accepted - self._exporter.settled >= MAX_SPANS:
            self._tally.drop("spans-queue-full", 1)
        else:
            self._accepted += 1
            self._processor.on_end(span)

    def flush(self) -> None:
        """Send what waits. Blocks; call it in a thread of its own."""
        self._processor.force_flush()

    def close(self) -> None:
        """End the thread once its request is over. Blocks; call it in a thread of its own."""
        self._exporter.shutdown()
        self._processor.shutdown()  # type: ignore[no-untyped-call]


class MetricExport:
    """Sends snapshots of the metrics. At most one waits."""

    def __init__(self, endpoint: str | None, hold: Hold, tally: Tally) -> None:
        """``endpoint`` is the URL of the collector; None: that of the environment, or the default."""
        url = None if endpoint is None else f"{endpoint}/v1/metrics"
        self._exporter = OTLPMetricExporter(url, session=_BoundedSession())
        self._hold = hold
        self._tally = tally
        self._waiting: queue.Queue[MetricsData | None] = queue.Queue(maxsize=1)
        threading.Thread(target=self._run, name="export of metrics", daemon=True).start()

    def offer(self, snapshot: MetricsData) -> None:
        """Queue a snapshot; drop and count it if the one before still waits."""
        try:
            self._waiting.put_nowait(snapshot)
        except queue.Full:
            self._tally.drop("metrics-queue-full", 1)

    def flush(self) -> None:
        """Wait until every snapshot was sent. Blocks; call it in a thread of its own."""
        self._waiting.join()

    def close(self) -> None:
        """End the thread once its request is over. Blocks; call it in a thread of its own."""
        self._exporter.shutdown()
        self._waiting.put(None)

    def _run(self) -> None:
        while (snapshot := self._waiting.get()) is not None:
            try:
                if self._hold.may_send():
                    result = self._exporter.export(snapshot)
                    self._tally.sent("metrics", 1, is_taken=result is MetricExportResult.SUCCESS)
                else:
                    self._tally.drop("metrics-too-late", 1)
            finally:
                self._waiting.task_done()


class _BoundedSession(requests.Session):
    """A session that keeps no answer. The library would read one of any length into memory."""

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """Send a request; read and discard the answer's body, up to MAX_ANSWER.

        Raises RequestException for a redirect. Its target must not get the headers, which may hold a key, and
        the library counts the status as a success.
        """
        options["stream"] = True
        options["allow_redirects"] = False
        response = super().send(request, **options)
        if 300 <= response.status_code < 400:
            response.close()
            raise requests.RequestException(f"the collector redirects elsewhere ({response.status_code})")
        if len(response.raw.read(MAX_ANSWER, decode_content=False)) >= MAX_ANSWER:
            response.close()
        return response


class _LibraryLog(logging.Handler):
    """Passes the library's lines on at ``debug``: they name the collector. Credentials are left out."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log one line."""
        # Its reader of headers puts a header that it does not understand into the line.
        text = str(record.msg) if record.name == _HEADER_READER else record.getMessage()
        log.debug("%s", _USER_INFO.sub("//...@", text))


def divert_library_log() -> None:
    """Keep the lines of the library away from standard error."""
    library = logging.getLogger("opentelemetry")
    library.propagate = False
    library.handlers[:] = [_LibraryLog()]


def resource_of(service: str, version: str) -> Resource:
    """Return what the collector learns of this process; OTEL_RESOURCE_ATTRIBUTES and _SERVICE_NAME count."""
    own = Resource.create({"service.name": service, "service.version": version})
    return own.merge(OTELResourceDetector().detect())


def sampler_of(sample: float, environ: Mapping[str, str]) -> Sampler:
    """Return the sampler of OTEL_TRACES_SAMPLER, or one that keeps ``sample`` of all traces, by their ids."""
    configured = None if environ.get("OTEL_TRACES_SAMPLER") else ParentBased(TraceIdRatioBased(sample))
    # The library reads the environment.
    return TracerProvider(sampler=configured, shutdown_on_exit=False).sampler
