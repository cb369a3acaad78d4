"""When telemetry starts, what the OTEL_ variables change, and what is loaded when it is off."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping

import pytest
from lab.collector import Collector
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from halftunnel_vpn.config.shared import TelemetryConfig
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import HostError
from halftunnel_vpn.observe.metrics import Metrics
from halftunnel_vpn.observe.otlp_metrics import snapshot
from halftunnel_vpn.observe.telemetry import Telemetry
from halftunnel_vpn.protocol.keys import SessionKeys
from halftunnel_vpn.protocol.stream_messages import StreamKind
from halftunnel_vpn.timers import Wheel

ON = TelemetryConfig(enabled=True, sample=1.0)
KEYS = SessionKeys(bytes(32))


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    made = Telemetry("halftunnel-client", "1.2.3", Metrics("1.2.3"), Wheel())
    yield made
    made.close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def wait_for(collector: Collector, requests: int) -> None:
    deadline = time.monotonic() + 60
    while len(collector.requests) < requests and time.monotonic() < deadline:
        time.sleep(0.005)
    assert len(collector.requests) >= requests


# --- off ------------------------------------------------------------------------------------------

EVERY_ENTRY = """
import sys
import halftunnel_vpn.cli.proxy, halftunnel_vpn.client.main
import halftunnel_vpn.daemon.main, halftunnel_vpn.server.main
from halftunnel_vpn.config.shared import TelemetryConfig
from halftunnel_vpn.observe.metrics import Metrics
from halftunnel_vpn.observe.telemetry import Telemetry
from halftunnel_vpn.protocol.keys import SessionKeys
from halftunnel_vpn.timers import Wheel
telemetry = Telemetry("halftunnel-client", "1", Metrics("1"), Wheel())
telemetry.start(TelemetryConfig())
assert telemetry.session(SessionKeys(bytes(32)), is_client=True) is None
telemetry.start(TelemetryConfig(enabled=True), {"OTEL_SDK_DISABLED": "true"})
assert telemetry.session(SessionKeys(bytes(32)), is_client=True) is None
found = {name.split(".")[0] for name in sys.modules} & {"opentelemetry", "requests", "google", "urllib3"}
assert not found, found
"""

WITHOUT_EXTRA = """
import sys
sys.modules["opentelemetry"] = None
from halftunnel_vpn.config.shared import TelemetryConfig
from halftunnel_vpn.errors import HostError
from halftunnel_vpn.observe.metrics import Metrics
from halftunnel_vpn.observe.telemetry import Telemetry
from halftunnel_vpn.timers import Wheel
try:
    Telemetry("halftunnel-client", "1", Metrics("1"), Wheel()).start(TelemetryConfig(enabled=True))
except HostError as error:
    print(error)
"""


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_off_by_default_and_then_not_even_loaded():
    assert not TelemetryConfig().enabled
    assert run(EVERY_ENTRY) == ""


def test_a_missing_extra_is_one_sentence():
    assert run(WITHOUT_EXTRA) == (
        "[telemetry] enabled needs OpenTelemetry, which is not installed (enabled = false needs none): "
        f"run {sys.executable} -m pip install 'opentelemetry-sdk>=1.27' "
        "'opentelemetry-exporter-otlp-proto-http>=1.27' 'requests>=2.28'\n"
    )


# --- the environment ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, 'OTEL_TRACES_EXPORTER = "zipkin": must be otlp or none'),
        ({"OTEL_METRICS_EXPORTER": "console"}, 'OTEL_METRICS_EXPORTER = "console": must be otlp or none'),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            'OTEL_EXPORTER_OTLP_PROTOCOL = "grpc": must be http/protobuf',
        ),
        (
            {"OTEL_METRIC_EXPORT_INTERVAL": "often"},
            'OTEL_METRIC_EXPORT_INTERVAL = "often": must be a number of milliseconds from 100 to 86400000',
        ),
    ],
)
def test_a_wrong_variable_is_one_sentence(telemetry: Telemetry, environ: Mapping[str, str], sentence: str):
    with pytest.raises(HostError) as refused:
        telemetry.start(ON, environ)
    assert str(refused.value) == sentence
    assert telemetry.session(KEYS, is_client=True) is None


def test_a_variable_that_the_library_refuses_is_one_sentence(telemetry, monkeypatch):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "-5")
    with pytest.raises(HostError, match=r"^\[telemetry\] cannot start: .*; check the OTEL_ variables$"):
        telemetry.start(ON)


async def test_the_library_reads_its_own_variables(telemetry, collector, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20token")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "office")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    telemetry.start(
        TelemetryConfig(enabled=True, endpoint="http://127.0.0.1:1")
    )  # the environment comes first
    telemetry.release()
    telemetry.handshake_failed("test", time.monotonic())
    await telemetry.flush()
    [request] = collector.requests
    assert (request.path, request.headers["authorization"]) == ("/v1/traces", "Bearer token")
    assert b"deployment.environment" in request.body
    assert [span.service for span in collector.spans] == ["office"]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_collector_that_redirects_takes_nothing(telemetry, collector, monkeypatch, status):
    """The keys in the headers go to nobody else, and what is lost is counted as lost."""
    other = Collector()
    try:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=canary")
        monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
        head = f"HTTP/1.1 {status} Moved\r\nLocation: {other.url}/v1/traces\r\n"
        collector.answer = f"{head}Content-Length: 0\r\n\r\n".encode()
        telemetry.start(TelemetryConfig(enabled=True, endpoint=collector.url, sample=1.0))
        telemetry.release()
        telemetry.handshake_failed("test", time.monotonic())
        await telemetry.flush()
        counters = telemetry._counters
        counters.refresh()
        assert counters.dropped == {"spans-not-taken": 1}
        assert len(collector.requests) == 1 and not other.requests
    finally:
        other.close()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key canary"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "api key=canary,b=2"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "gopher://user:canary@127.0.0.1:1"),
    ],
)
async def test_credentials_of_the_environment_are_in_no_log(telemetry, monkeypatch, caplog, variable, value):
    caplog.set_level(logging.DEBUG, "halftunnel_vpn")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    monkeypatch.setenv(variable, value)
    telemetry.start(ON)
    telemetry.release()
    telemetry.handshake_failed("test", time.monotonic())
    await telemetry.flush()
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG]
    wanted = "Header format invalid" if variable.endswith("HEADERS") else "//...@127.0.0.1:1/v1/traces"
    assert any(wanted in line for line in lines)
    assert "canary" not in caplog.text


@pytest.mark.parametrize(
    ("sampler", "argument", "is_traced"),
    [("always_off", "", False), ("always_on", "", True), ("parentbased_traceidratio", "0", False)],
)
def test_a_sampler_of_the_environment_decides(telemetry, monkeypatch, sampler, argument, is_traced):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
    telemetry.start(TelemetryConfig(enabled=True, sample=0.0 if is_traced else 1.0))
    session = telemetry.session(KEYS, is_client=True)
    assert session is not None
    assert (session.stream(1, StreamKind.TCP) is not None) is is_traced
    assert bool(session.log_fields) is is_traced


def test_without_traces_or_without_metrics_the_rest_is_exported(telemetry, collector):
    config = TelemetryConfig(enabled=True, endpoint=collector.url)
    telemetry.start(config, {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRIC_EXPORT_INTERVAL": "100"})
    assert telemetry.session(KEYS, is_client=True) is None
    telemetry.release()
    telemetry._next._callback(time.monotonic())  # as the wheel does
    wait_for(collector, 1)
    assert collector.requests[0].path == "/v1/metrics"


# --- what is sampled, and the metrics ---------------------------------------------------------------


def test_both_ends_sample_alike_and_as_often_as_configured(telemetry):
    telemetry.start(TelemetryConfig(enabled=True, sample=0.25))
    client, exit_ = (telemetry.session(KEYS, is_client=is_client) for is_client in (True, False))
    kept = [stream for stream in range(1, 4001) if client.stream(stream, StreamKind.TCP) is not None]
    assert kept == [stream for stream in range(1, 4001) if exit_.stream(stream, StreamKind.UDP) is not None]
    assert 850 < len(kept) < 1150


def test_counters_are_summed_over_labels_that_name_somebody():
    metrics = Metrics("1")
    metrics.add("client_bytes_total", lambda: {("anna", "sent"): 3.0, ("otto", "sent"): 4.0})
    metrics.add(
        "circuit_state", lambda: {("upstream", "a:443", "open"): 0.0, ("upstream", "b:443", "open"): 1.0}
    )
    counters = Counters()
    for seconds in (0.004, 0.3, 60.0):
        counters.observe("latency-tcp", seconds)
    metrics.add_counters("exit", counters)
    data = snapshot(metrics.collect(), Resource({}), InstrumentationScope("test"), (1, 2))
    found = {each.name: each.data for each in data.resource_metrics[0].scope_metrics[0].metrics}
    [point] = found["halftunnel_client_bytes_total"].data_points
    assert (point.attributes, point.value) == ({"direction": "sent"}, 7.0)
    [point] = found["halftunnel_circuit_state"].data_points
    assert (point.attributes, point.value) == ({"path": "upstream", "state": "open"}, 1.0)
    [point] = found["halftunnel_stream_latency_seconds"].data_points
    assert (point.count, point.sum) == (3, pytest.approx(60.304))
    assert point.bucket_counts == [1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1] and len(point.explicit_bounds) == 11
