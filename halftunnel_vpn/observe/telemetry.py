"""The export of spans and metrics by OpenTelemetry: off unless asked for, and not even imported then.

The ``OTEL_*`` variables of the environment come before the configuration. The library reads most of them
itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from halftunnel_vpn.config.shared import TelemetryConfig
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import HostError, MissingExtra
from halftunnel_vpn.observe.metrics import Metrics
from halftunnel_vpn.protocol.keys import SessionKeys
from halftunnel_vpn.protocol.trace_ports import SessionTrace
from halftunnel_vpn.timers import Timer, Wheel

if TYPE_CHECKING:
    from halftunnel_vpn.observe.otlp_export import Tally
    from halftunnel_vpn.observe.otlp_session import Exporting

FLUSH_TIMEOUT: Final = 1.0
"""Seconds that the end of a process, or of a tunnel, waits for the collector."""

DEFAULT_METRIC_INTERVAL: Final = 60.0
"""Seconds between two snapshots of the metrics, as OTEL_METRIC_EXPORT_INTERVAL says otherwise."""

MIN_METRIC_INTERVAL: Final = 0.1
MAX_METRIC_INTERVAL: Final = 86400.0

log = logging.getLogger(__name__)


class Telemetry:
    """Implements TelemetryPort for one process. ``service`` is its name for the collector."""

    def __init__(self, service: str, version: str, metrics: Metrics, wheel: Wheel) -> None:
        self._service = service
        self._version = version
        self._metrics = metrics
        self._counters = Counters()
        self._tally: Tally | None = None
        self._exporting: Exporting | None = None
        self._interval = DEFAULT_METRIC_INTERVAL
        # Takes the next snapshot of the metrics.
        self._next: Timer = wheel.timer(self._take_snapshot)
        metrics.add_counters("telemetry", self._counters)

    # --- life ------------------------------------------------------------------------------------

    def start(self, config: TelemetryConfig, environ: Mapping[str, str] = os.environ) -> None:
        """Begin to collect, if ``config`` asks for it. Nothing is sent yet. Raises HostError."""
        self.close()
        if not config.enabled or environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            return
        wants_spans = _is_wanted("OTEL_TRACES_EXPORTER", environ)
        wants_metrics = _is_wanted("OTEL_METRICS_EXPORTER", environ)
        _check_protocol(environ)
        self._interval = _metric_interval(environ)
        try:
            from halftunnel_vpn.observe.otlp_export import Tally
            from halftunnel_vpn.observe.otlp_session import Exporting
        except ImportError as error:
            raise MissingExtra(
                "[telemetry] enabled needs OpenTelemetry, which is not installed "
                "(enabled = false needs none)",
                "otel",
            ) from error
        if self._tally is None:
            self._tally = Tally(self._counters)
        try:
            self._exporting = Exporting(
                config,
                self._service,
                self._version,
                self._tally,
                environ,
                with_spans=wants_spans,
                with_metrics=wants_metrics,
            )
        except Exception as error:  # the library raises whatever its variables cause
            raise HostError(f"[telemetry] cannot start: {error}; check the OTEL_ variables") from error
        if wants_metrics:
            self._next.arm(time.monotonic() + self._interval)

    def release(self) -> None:
        """Send from now on."""
        if self._exporting is not None:
            self._exporting.hold.release()

    async def flush(self) -> None:
        """Send what was collected. Give up after FLUSH_TIMEOUT."""
        exporting = self._exporting
        if exporting is None:
            return
        exporting.offer(self._metrics.collect())
        sent, loop = asyncio.Event(), asyncio.get_running_loop()

        def flush() -> None:
            exporting.flush()
            with contextlib.suppress(RuntimeError):  # too late: the loop is closed
                loop.call_soon_threadsafe(sent.set)

        _in_a_thread(flush)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_TIMEOUT):
                await sent.wait()

    def close(self) -> None:
        """Collect and send nothing more. Repeatable."""
        self._next.cancel()
        exporting, self._exporting = self._exporting, None
        if exporting is not None:
            exporting.hold.end()
            _in_a_thread(exporting.close)

    def _take_snapshot(self, now: float) -> None:
        self._next.arm(now + self._interval)
        if self._exporting is not None:
            self._exporting.offer(self._metrics.collect())

    # --- Tracing ---------------------------------------------------------------------------------

    def session(self, keys: SessionKeys, *, is_client: bool) -> SessionTrace | None:
        """Return the traces of a session with these keys; None while traces are off."""
        return None if self._exporting is None else self._exporting.session(keys, is_client=is_client)

    def handshake_failed(self, reason: str, began: float) -> None:
        """Record a handshake that has failed."""
        if self._exporting is not None:
            self._exporting.handshake_failed(reason, began)


def _in_a_thread(work: Callable[[], None]) -> None:
    """Run ``work``, which may block for as long as the collector does. The process does not wait for it."""
    threading.Thread(target=work, name="telemetry", daemon=True).start()


def _is_wanted(variable: str, environ: Mapping[str, str]) -> bool:
    """Return whether a kind of data is exported. Raises HostError for an exporter other than OTLP."""
    value = environ.get(variable, "").strip().lower() or "otlp"
    if value not in ("otlp", "none"):
        raise HostError(f'{variable} = "{value}": must be otlp or none')
    return value == "otlp"


def _check_protocol(environ: Mapping[str, str]) -> None:
    for variable in (
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
    ):
        value = environ.get(variable, "").strip().lower()
        if value not in ("", "http/protobuf"):
            raise HostError(f'{variable} = "{value}": must be http/protobuf')


def _metric_interval(environ: Mapping[str, str]) -> float:
    """Return the seconds between two snapshots. Raises HostError."""
    text = environ.get("OTEL_METRIC_EXPORT_INTERVAL", "").strip()
    if not text:
        return DEFAULT_METRIC_INTERVAL
    try:
        seconds = int(text) / 1000
    except ValueError:
        seconds = 0.0
    if not MIN_METRIC_INTERVAL <= seconds <= MAX_METRIC_INTERVAL:
        raise HostError(
            f'OTEL_METRIC_EXPORT_INTERVAL = "{text}": must be a number of milliseconds from 100 to 86400000'
        )
    return seconds
