"""Metrics: a collector that reads plain integers at each request, and costs the data path nothing.

``catalogue.py`` declares every name. Exposition by prometheus_client, with its metrics of the process. It is
imported at the first request: a start does not wait for it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from halftunnel_vpn.counters import LATENCY_BOUNDS, Counters, Histogram
from halftunnel_vpn.observe.catalogue import METRICS, PREFIX, Described, MetricKind

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

Labels = tuple[str, ...]
"""The values of the labels, in the order of the catalogue."""

Reading = float | Mapping[str, float] | Mapping[Labels, float]
"""The value of a metric without labels, of one with a single label, of one with several."""

PATHS = ("upstream", "downstream")

QUANTITIES = tuple(
    f"{path}-{quantity}-{way}"
    for path in PATHS
    for quantity in ("bytes", "packets", "messages", "padding")
    for way in ("sent", "received")
)
"""Counts that have a metric of their own, or none, and are no events."""

LATENCY = "latency-"
"""Begins the name under which :class:`Counters` observes the latency of a kind of streams."""


class Metrics:
    """All numbers of one process, in a registry of its own."""

    def __init__(self, version: str) -> None:
        self._version = version
        self._counters: list[tuple[str, Counters]] = []
        self._readers: dict[str, Callable[[], Reading]] = {}
        self._registry: CollectorRegistry | None = None

    def add_counters(self, component: str, counters: Counters) -> None:
        """Show ``counters`` from now on; those of one component are added up."""
        self._counters.append((component, counters))

    def add(self, name: str, read: Callable[[], Reading]) -> None:
        """Show the metric ``name`` of the catalogue; ``read`` returns its value at each request."""
        assert METRICS[name].kind is not MetricKind.HISTOGRAM, name
        self._readers[name] = read

    def render(self) -> tuple[str, bytes]:
        """Content type and body of an answer to a scrape."""
        from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

        if self._registry is None:
            self._registry = _registry_of(self)
        return CONTENT_TYPE_LATEST, generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """Nothing: names are known only once there are counts."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read everything (called by the registry)."""
        for _, counters in self._counters:
            counters.refresh()
        yield self._totals("dropped_total", lambda counters: counters.dropped)
        yield self._totals("events_total", _events)
        yield self._on_paths("bytes_total", "bytes-sent", "bytes-received")
        yield self._on_paths("padding_bytes_total", "padding-sent", "padding-received")
        yield self._on_paths("packets_sent_total", "packets-sent")
        yield self._on_paths("packets_received_total", "packets-received")
        yield self._latencies()
        yield _family(METRICS["build_info"], {self._version: 1})
        for name, read in self._readers.items():
            yield _family(METRICS[name], read())

    def _totals(self, name: str, counts: Callable[[Counters], Mapping[str, int]]) -> Metric:
        totals: defaultdict[Labels, float] = defaultdict(float)
        for component, counters in self._counters:
            for word, count in counts(counters).items():
                totals[component, word] += count
        return _family(METRICS[name], dict(sorted(totals.items())))

    def _on_paths(self, name: str, *quantities: str) -> Metric:
        """Return what legs have counted; ``quantities`` end in the value of the second label, if any."""
        values: dict[Labels, float] = {}
        for path in PATHS:
            for quantity in quantities:
                labels = (path, quantity.rpartition("-")[2]) if len(quantities) > 1 else (path,)
                counts = [counters.counted.get(f"{path}-{quantity}", 0) for _, counters in self._counters]
                values[labels] = sum(counts)
        return _family(METRICS[name], values)

    def _latencies(self) -> Metric:
        from prometheus_client.metrics_core import HistogramMetricFamily

        described = METRICS["stream_latency_seconds"]
        family = HistogramMetricFamily(PREFIX + described.name, described.meaning, labels=described.labels)
        merged: dict[str, list[Histogram]] = {}
        for _, counters in self._counters:
            for name, histogram in counters.observed.items():
                merged.setdefault(name.removeprefix(LATENCY), []).append(histogram)
        for kind, histograms in sorted(merged.items()):
            buckets: list[tuple[str, float]] = []
            total = 0
            for number, bound in enumerate([*map(str, LATENCY_BOUNDS), "+Inf"]):
                total += sum(histogram.buckets[number] for histogram in histograms)
                buckets.append((bound, total))
            family.add_metric([kind], buckets, sum(histogram.sum for histogram in histograms))
        return family


def _events(counters: Counters) -> Mapping[str, int]:
    return {word: count for word, count in counters.counted.items() if word not in QUANTITIES}


def _registry_of(metrics: Metrics) -> CollectorRegistry:
    from prometheus_client import CollectorRegistry, ProcessCollector

    registry = CollectorRegistry(auto_describe=False)
    registry.register(metrics)
    ProcessCollector(registry=registry)
    return registry


def _family(described: Described, reading: Reading) -> Metric:
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

    kind = CounterMetricFamily if described.kind is MetricKind.COUNTER else GaugeMetricFamily
    # The library adds the suffix of a counter again.
    name = PREFIX + described.name.removesuffix("_total")
    family = kind(name, described.meaning, labels=described.labels)
    if not isinstance(reading, Mapping):
        family.add_metric([], reading)
        return family
    for labels, value in reading.items():
        family.add_metric([labels] if isinstance(labels, str) else labels, value)
    return family
