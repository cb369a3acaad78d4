"""The metrics of a process in the data model of OpenTelemetry, with the names of ``catalogue.py``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    HistogramDataPoint,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from opentelemetry.sdk.metrics.export import Metric as MetricData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client.metrics_core import Metric

from halftunnel_vpn.counters import LATENCY_BOUNDS

NAMING_LABELS: Final = frozenset({"domain", "client"})
"""Labels that name somebody. They are not exported: counters are added up, of gauges the highest counts."""

_CUMULATIVE: Final = AggregationTemporality.CUMULATIVE

_Attributes = tuple[tuple[str, str], ...]


def snapshot(
    families: Iterable[Metric], resource: Resource, scope: InstrumentationScope, times: tuple[int, int]
) -> MetricsData:
    """Return ``families`` as they are now. ``times``: when counting began, and now, in ns since 1970."""
    metrics = [
        _histogram(each, times) if each.type == "histogram" else _numbers(each, times) for each in families
    ]
    scoped = ScopeMetrics(scope, [each for each in metrics if each.data.data_points], "")
    return MetricsData([ResourceMetrics(resource, [scoped], "")])


def _numbers(family: Metric, times: tuple[int, int]) -> MetricData:
    is_counter = family.type == "counter"
    values: dict[_Attributes, float] = {}
    for sample in family.samples:
        attributes = _attributes(sample.labels)
        if attributes not in values:
            values[attributes] = sample.value
        elif is_counter:
            values[attributes] += sample.value
        else:
            values[attributes] = max(values[attributes], sample.value)
    points = [NumberDataPoint(dict(labels), *times, float(value)) for labels, value in values.items()]
    if not is_counter:
        return MetricData(family.name, family.documentation, _unit(family.name), Gauge(points))
    name = f"{family.name}_total"
    return MetricData(name, family.documentation, _unit(family.name), Sum(points, _CUMULATIVE, True))


def _histogram(family: Metric, times: tuple[int, int]) -> MetricData:
    totals: dict[_Attributes, list[int]] = {}
    sums: dict[_Attributes, float] = {}
    for sample in family.samples:
        attributes = _attributes({key: value for key, value in sample.labels.items() if key != "le"})
        if sample.name.endswith("_bucket"):
            totals.setdefault(attributes, []).append(int(sample.value))
        elif sample.name.endswith("_sum"):
            sums[attributes] = sample.value
    points = [
        HistogramDataPoint(
            dict(labels), *times, counts[-1], sums[labels], list(_parts(counts)), LATENCY_BOUNDS, 0.0, 0.0
        )
        for labels, counts in totals.items()
    ]
    data = HistogramData(points, _CUMULATIVE)
    return MetricData(family.name, family.documentation, _unit(family.name), data)


def _parts(cumulative: list[int]) -> Iterator[int]:
    """Yield what each bucket adds to the one before."""
    before = 0
    for count in cumulative:
        yield count - before
        before = count


def _attributes(labels: dict[str, str]) -> _Attributes:
    return tuple((key, value) for key, value in labels.items() if key not in NAMING_LABELS)


def _unit(name: str) -> str:
    """Return the unit that ends a name, in the words of UCUM."""
    if name.endswith("_bytes"):
        return "By"
    return "s" if name.endswith("_seconds") else "1"
