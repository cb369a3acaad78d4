"""Metrics as a scraper sees them; prometheus_client's own parser is the oracle."""

from __future__ import annotations

import pytest
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
        if not sample.name.startswith("process_")
    }


def test_counters_appear_by_reason_and_by_event():
    counters = Counters()
    metrics = Metrics("1.2.3")
    metrics.add_counters("exit", counters)
    assert scraped(metrics)["halftunnel_build_info", (("version", "1.2.3"),)] == 1
    assert not [name for name, _ in scraped(metrics) if "dropped" in name or "events" in name]

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


def test_readings_are_taken_when_they_are_asked_for():
    flows = {"tcp": 1.0}
    metrics = Metrics("0")
    metrics.add("active_sessions", lambda: len(flows))
    metrics.add("flows", lambda: flows)
    metrics.add("circuit_state", lambda: {("upstream", "a:443", "open"): 1.0})
    assert scraped(metrics)["halftunnel_active_sessions", ()] == 1
    flows["udp"] = 4.0
    seen = scraped(metrics)
    assert seen["halftunnel_active_sessions", ()] == 2
    assert seen["halftunnel_flows", (("kind", "udp"),)] == 4
    labels = (("domain", "a:443"), ("path", "upstream"), ("state", "open"))
    assert seen["halftunnel_circuit_state", labels] == 1


def test_what_legs_carry_has_a_name_of_its_own_and_is_no_event():
    counters = Counters()
    counters.count("upstream-bytes-sent", 700)
    counters.count("upstream-packets-received", 7)
    counters.count("downstream-messages-sent", 3)
    metrics = Metrics("0")
    metrics.add_counters("exit", counters)
    seen = scraped(metrics)
    assert seen["halftunnel_bytes_total", (("direction", "sent"), ("path", "upstream"))] == 700
    assert seen["halftunnel_packets_received_total", (("path", "upstream"),)] == 7
    assert not [labels for name, labels in seen if name == "halftunnel_events_total"]


def test_latencies_fall_into_cumulative_buckets():
    counters = Counters()
    for seconds in (0.004, 0.005, 0.3, 60.0):
        counters.observe("latency-tcp", seconds)
    metrics = Metrics("0")
    metrics.add_counters("client", counters)
    seen = scraped(metrics)
    name = "halftunnel_stream_latency_seconds"
    buckets = {labels[1][1]: value for (key, labels), value in seen.items() if key == f"{name}_bucket"}
    assert {bound: buckets[bound] for bound in ("0.005", "0.25", "0.5", "10.0", "+Inf")} == {
        "0.005": 2,
        "0.25": 2,
        "0.5": 3,
        "10.0": 3,
        "+Inf": 4,
    }
    assert seen[f"{name}_count", (("kind", "tcp"),)] == 4
    assert seen[f"{name}_sum", (("kind", "tcp"),)] == pytest.approx(60.309)


def test_a_name_that_the_catalogue_lacks_is_refused():
    with pytest.raises(KeyError):
        Metrics("0").add("made_up", lambda: 1)


def test_the_process_itself_is_shown():
    page = Metrics("0").render()[1]
    assert b"process_cpu_seconds_total " in page and b"process_resident_memory_bytes " in page


def test_two_processes_worth_of_metrics_in_one_process_do_not_meet():
    one, other = Metrics("1"), Metrics("2")
    one.add("active_sessions", lambda: 1)
    assert ("halftunnel_active_sessions", ()) not in scraped(other)
