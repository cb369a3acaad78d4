"""Metrics as a scraper sees them; prometheus_client's own parser is the oracle."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.observe.metrics import Metrics


def scraped(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    content_type, body = metrics.render()
    assert content_type.startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def test_counters_appear_by_reason_and_by_event():
    counters = Counters()
    metrics = Metrics("1.2.3")
    metrics.add_counters("exit", counters)
    assert scraped(metrics) == {("halftunnel_build", (("version", "1.2.3"),)): 1}

    counters.drop("ip-bad-checksum", 3)
    counters.count("handshakes-accepted")
    seen = scraped(metrics)
    assert seen["halftunnel_dropped_total", (("component", "exit"), ("reason", "ip-bad-checksum"))] == 3
    assert seen["halftunnel_events_total", (("component", "exit"), ("event", "handshakes-accepted"))] == 1

    counters.drop("ip-bad-checksum")
    assert (
        scraped(metrics)["halftunnel_dropped_total", (("component", "exit"), ("reason", "ip-bad-checksum"))]
        == 4
    )


def test_counters_of_one_component_are_added_up_and_components_are_told_apart():
    metrics = Metrics("0")
    for component, count in (("leg", 2), ("leg", 5), ("dns", 1)):
        counters = Counters()
        counters.drop("x", count)
        metrics.add_counters(component, counters)
    seen = scraped(metrics)
    assert seen["halftunnel_dropped_total", (("component", "leg"), ("reason", "x"))] == 7
    assert seen["halftunnel_dropped_total", (("component", "dns"), ("reason", "x"))] == 1


def test_gauges_are_read_when_they_are_asked_for():
    flows = {"tcp": 1.0}
    metrics = Metrics("0")
    metrics.add_gauge("sessions", "Sessions now.", lambda: len(flows))
    metrics.add_labelled_gauge("flows", "Flows now.", "kind", lambda: flows)
    assert scraped(metrics)["halftunnel_sessions", ()] == 1
    flows["udp"] = 4.0
    seen = scraped(metrics)
    assert seen["halftunnel_sessions", ()] == 2
    assert seen["halftunnel_flows", (("kind", "udp"),)] == 4


def test_two_processes_worth_of_metrics_in_one_process_do_not_meet():
    one, other = Metrics("1"), Metrics("2")
    one.add_gauge("sessions", "Sessions now.", lambda: 1)
    assert ("halftunnel_sessions", ()) not in scraped(other)
