"""The bounds of the export to a collector. They are read without loading OpenTelemetry."""

from __future__ import annotations

from typing import Final

MAX_SPANS: Final = 2048
"""Spans that wait for the collector."""

MAX_SPAN_BATCH: Final = 512
"""Spans in one request."""

MAX_ANSWER: Final = 64 * 1024
"""Bytes of an answer of the collector that are read; of a longer one the connection is closed."""
