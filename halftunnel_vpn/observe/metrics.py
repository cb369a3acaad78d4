"""Metrics: a collector that reads plain integers at each request, so the data path has no cost.

Names and labels: ``halftunnel_dropped_total{component, reason}``, ``halftunnel_events_total{component,
event}``, and a gauge ``halftunnel_NAME`` for every added callable. prometheus_client formats the output.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from halftunnel_vpn.counters import Counters

PREFIX = "halftunnel_"

Gauge = Callable[[], float]
LabelledGauge = Callable[[], Mapping[str, float]]


class Metrics(Collector):
    """All metrics of one process, in a registry of its own."""

    def __init__(self, version: str) -> None:
        self._version = version
        self._counters: list[tuple[str, Counters]] = []
        self._gauges: dict[str, tuple[str, Gauge]] = {}
        self._labelled: dict[str, tuple[str, str, LabelledGauge]] = {}
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def add_counters(self, component: str, counters: Counters) -> None:
        """Export ``counters`` from now on. Those of one component are added up."""
        self._counters.append((component, counters))

    def add_gauge(self, name: str, meaning: str, read: Gauge) -> None:
        """Export ``halftunnel_NAME``. ``read`` returns its value."""
        self._gauges[name] = (meaning, read)

    def add_labelled_gauge(self, name: str, meaning: str, label: str, read: LabelledGauge) -> None:
        """Export ``halftunnel_NAME{label=...}``. ``read`` returns the value for each label value."""
        self._labelled[name] = (meaning, label, read)

    def render(self) -> tuple[str, bytes]:
        """Return content type and body of the answer to a scrape."""
        return CONTENT_TYPE_LATEST, generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """Return nothing: the names are only known once there are counts."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read all values (called by the registry)."""
        for _, counters in self._counters:
            counters.refresh()
        yield self._totals("dropped", "What was dropped or refused, by reason.", "reason")
        yield self._totals("events", "Events and quantities, by name.", "event")
        build = GaugeMetricFamily(f"{PREFIX}build", "The version that runs.", labels=["version"])
        build.add_metric([self._version], 1)
        yield build
        for name, (meaning, read) in self._gauges.items():
            yield GaugeMetricFamily(PREFIX + name, meaning, value=read())
        for name, (meaning, label, read_all) in self._labelled.items():
            family = GaugeMetricFamily(PREFIX + name, meaning, labels=[label])
            for value_of_label, value in read_all().items():
                family.add_metric([value_of_label], value)
            yield family

    def _totals(self, name: str, meaning: str, label: str) -> Metric:
        totals: defaultdict[tuple[str, str], int] = defaultdict(int)
        for component, counters in self._counters:
            counts = counters.dropped if label == "reason" else counters.counted
            for word, count in counts.items():
                totals[component, word] += count
        family = CounterMetricFamily(PREFIX + name, meaning, labels=["component", label])
        for (component, word), total in sorted(totals.items()):
            family.add_metric([component, word], total)
        return family
