"""Traces and metrics of both ends of a real session, at a real receiver of OTLP."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from lab.collector import Collector, ReceivedSpan

from halftunnel_vpn.config.shared import TelemetryConfig
from halftunnel_vpn.config.writing import render
from halftunnel_vpn.errors import HandshakeError, RoadError
from halftunnel_vpn.observe import log_format
from halftunnel_vpn.observe.catalogue import METRICS, PREFIX
from halftunnel_vpn.observe.metrics import Metrics
from halftunnel_vpn.observe.otlp_bounds import MAX_SPANS
from halftunnel_vpn.observe.telemetry import Telemetry
from halftunnel_vpn.protocol.keys import Direction, KeyPair, encode_key
from halftunnel_vpn.protocol.stream_messages import ResetCode, StreamKind
from halftunnel_vpn.timers import Wheel
from halftunnel_vpn.transport.driver import Driver

QUICK = {"OTEL_METRIC_EXPORT_INTERVAL": "100"}


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


@pytest.fixture
def log_at() -> Iterator[Callable[[str], io.StringIO]]:
    """Collects the log of both ends at a level, as JSON."""
    root = logging.getLogger(log_format.ROOT)
    before = root.handlers[:], root.level, root.propagate
    written = io.StringIO()

    def configure(level: str) -> io.StringIO:
        log_format.configure(level, "json", written)
        return written

    yield configure
    root.handlers[:], root.level, root.propagate = before


class Ends(SimpleNamespace):
    """The telemetry of both ends, and their metrics."""

    client: Telemetry
    exit: Telemetry
    client_metrics: Metrics
    exit_metrics: Metrics

    def start(self, url: str, **config: Any) -> None:
        """Export everything at once."""
        for telemetry in (self.client, self.exit):
            telemetry.start(TelemetryConfig(enabled=True, endpoint=url, **{"sample": 1.0, **config}), QUICK)
            telemetry.release()

    async def flush(self) -> None:
        await asyncio.gather(self.client.flush(), self.exit.flush())

    def dropped(self) -> dict[str, int]:
        """Drops of both ends."""
        found: dict[str, int] = {}
        for metrics in (self.client_metrics, self.exit_metrics):
            for family in metrics.collect():
                for sample in family.samples if family.name == "halftunnel_dropped" else ():
                    if sample.labels["component"] == "telemetry":
                        reason = sample.labels["reason"]
                        found[reason] = found.get(reason, 0) + int(sample.value)
        return found


@pytest.fixture
async def ends() -> Any:
    driver = Driver(asyncio.get_running_loop())
    numbers = Metrics("1.2.3"), Metrics("1.2.3")
    made = Ends(
        client=Telemetry("halftunnel-client", "1.2.3", numbers[0], driver.wheel),
        exit=Telemetry("halftunnel-exit", "1.2.3", numbers[1], driver.wheel),
        client_metrics=numbers[0],
        exit_metrics=numbers[1],
    )
    yield made
    made.client.close()
    made.exit.close()
    driver.close()


async def pair(running_exit: Any, make_client: Any, ends: Ends, **options: Any) -> Any:
    """Both ends, connected and traced."""
    running_exit.tracing = ends.exit
    await running_exit.start()
    return await make_client(tracing=ends.client, **options).up()


def by_name(spans: list[ReceivedSpan], service: str) -> dict[str, ReceivedSpan]:
    return {span.name: span for span in spans if span.service == service}


Poll = Callable[..., Awaitable[None]]


async def test_both_ends_have_one_trace_for_each_stream(
    running_exit, make_client, echo_server, ends, collector
):
    ends.start(collector.url)
    client = await pair(running_exit, make_client, ends)
    user = client.open(echo_server.port)
    assert await user.echo(b"hello") == b"hello"
    user.stream.reset(ResetCode.NORMAL)
    await ends.flush()
    stream_spans = [span for span in collector.spans if "halftunnel.stream.kind" in span.attributes]
    assert len({span.trace for span in stream_spans}) == 1
    ours, theirs = by_name(stream_spans, "halftunnel-client"), by_name(stream_spans, "halftunnel-exit")
    assert set(ours) == {"open stream", "first byte"}
    assert set(theirs) == {"open stream", "dial", "first byte"}
    assert ours["open stream"].parent == ""
    assert ours["first byte"].parent == theirs["open stream"].parent == ours["open stream"].span
    assert theirs["dial"].parent == theirs["first byte"].parent == theirs["open stream"].span
    assert len({span.span for span in stream_spans}) == 5
    assert not any(span.is_error for span in stream_spans)
    assert all(0 <= span.seconds < 60 for span in stream_spans)
    assert theirs["dial"].seconds <= theirs["open stream"].seconds <= ours["open stream"].seconds + 0.05


async def test_handshake_and_joins_are_one_trace(running_exit, make_client, ends, collector, until):
    ends.start(collector.url, sample=0.0)  # sessions are few, and always traced
    client = await pair(running_exit, make_client, ends, connections=2)
    await until(lambda: all(len(client.legs(way)) == 2 for way in Direction))
    await ends.flush()
    spans = collector.spans
    assert len({span.trace for span in spans}) == 1
    ours = [span for span in spans if span.service == "halftunnel-client"]
    theirs = [span for span in spans if span.service == "halftunnel-exit"]
    assert sorted(span.name for span in ours) == ["dial", "dial", "dial", "handshake", "join", "join"]
    assert sorted(span.name for span in theirs) == ["handshake", "join", "join"]
    handshake = by_name(spans, "halftunnel-client")["handshake"]
    assert handshake.parent == ""
    assert by_name(spans, "halftunnel-exit")["handshake"].parent == handshake.span
    joins = {span.span: span for span in ours if span.name == "join"}
    assert {span.parent for span in joins.values()} == {handshake.span}
    assert {span.parent for span in theirs if span.name == "join"} == set(joins)
    assert {span.parent for span in ours if span.name == "dial"} == {handshake.span, *joins}
    for span in theirs:
        if span.name == "join":
            assert span.attributes == joins[span.parent].attributes
            assert set(span.attributes) == {"halftunnel.direction", "halftunnel.leg"}


async def test_both_ends_sample_the_same_streams(running_exit, make_client, echo_server, ends, collector):
    ends.start(collector.url, sample=0.4)
    client = await pair(running_exit, make_client, ends)
    users = [client.open(echo_server.port) for _ in range(60)]
    for user in users:
        await user.heard("opened")
    await ends.flush()
    opened = [span for span in collector.spans if span.name == "open stream"]
    ours = {span.trace for span in opened if span.service == "halftunnel-client"}
    assert ours == {span.trace for span in opened if span.service == "halftunnel-exit"}
    assert 5 < len(ours) < 50  # 24 on average; outside of it once in a billion times


async def test_what_fails_is_an_error_without_a_destination(
    running_exit, make_client, ends, collector, free_port
):
    ends.start(collector.url)
    client = await pair(running_exit, make_client, ends)
    refused = client.open(free_port())
    await refused.until(lambda: refused.events)
    unknown = client.open(443, host="canary-destination.example.org")
    await unknown.until(lambda: unknown.events)
    await ends.flush()
    errors = {
        (span.service, span.name, span.attributes["error.type"]) for span in collector.spans if span.is_error
    }
    assert errors == {
        ("halftunnel-client", "open stream", "refused"),
        ("halftunnel-exit", "open stream", "refused"),
        ("halftunnel-exit", "dial", "refused"),
        ("halftunnel-client", "open stream", "name_not_found"),
        ("halftunnel-exit", "open stream", "name_not_found"),
        ("halftunnel-exit", "look up name", "name_not_found"),
    }


async def test_datagram_streams_and_dns_are_traced_too(running_exit, make_client, ends, collector, until):
    ends.start(collector.url)
    client = await pair(running_exit, make_client, ends)
    for kind in (StreamKind.UDP, StreamKind.ICMP):
        client.open(0, b"", kind)
    dns = client.open(0, b"", StreamKind.DNS)
    await dns.heard("opened")
    streams = client.connection.session.streams
    await until(lambda: all(getattr(stream, "is_accepted", True) for stream in streams.values()))
    await ends.flush()
    opened = [span for span in collector.spans if span.name == "open stream"]
    assert sorted(span.attributes["halftunnel.stream.kind"] for span in opened) == [
        "dns", "dns", "icmp", "icmp", "udp", "udp",
    ]  # fmt: skip
    assert len({span.trace for span in opened}) == 3 and not any(span.is_error for span in opened)


async def test_no_exported_byte_names_anybody(running_exit, make_client, echo_server, ends, collector):
    ends.start(collector.url)
    client = await pair(running_exit, make_client, ends, name="canary-laptop")
    for host in (b"\x7f\0\0\1", "canary-destination.example.org"):
        user = client.open(echo_server.port, host)
        await user.until(lambda user=user: user.events)
    session_id = client.connection.session.session_id
    await ends.flush()
    exported = b"".join(received.body for received in collector.requests)
    assert b"open stream" in exported and b"halftunnel_bytes_total" in exported
    for secret in (
        b"canary", b"example", b"127.0.0.1", b"localhost", b"\x7f\0\0\1", str(echo_server.port).encode(),
        socket.gethostname().encode(), session_id, session_id.hex().encode(),
        *(url.encode() for way in Direction for url in client.connector.road(way).urls),
    ):  # fmt: skip
        assert secret not in exported, secret


async def test_a_failed_handshake_is_a_span(running_exit, make_client, ends, collector):
    ends.start(collector.url)
    running_exit.tracing = ends.exit
    await running_exit.start()
    stranger = make_client(keys=KeyPair(bytes([7]) * 32), tracing=ends.client)
    with pytest.raises((HandshakeError, RoadError)):
        await stranger.connection.establish()
    await ends.flush()
    [span] = collector.spans  # the exit records nothing for a stranger
    assert (span.service, span.name, span.is_error) == ("halftunnel-client", "handshake", True)
    assert span.attributes["error.type"]


async def test_logs_carry_the_ids_of_the_spans(
    running_exit, make_client, echo_server, ends, collector, log_at
):
    written = log_at("debug")
    ends.start(collector.url)
    client = await pair(running_exit, make_client, ends)
    await client.open(echo_server.port).heard("opened")
    await ends.flush()
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    spans = {(span.trace, span.span): (span.service, span.name) for span in collector.spans}
    named = {
        line["logger"]: (line["message"], *spans[line["trace_id"], line["span_id"]])
        for line in lines
        if "trace_id" in line
    }
    assert named == {
        "halftunnel_vpn.client.connection": ("session established", "halftunnel-client", "handshake"),
        "halftunnel_vpn.server.sessions": ("session opened", "halftunnel-exit", "handshake"),
        "halftunnel_vpn.client.stream_log": ("stream opened: tcp", "halftunnel-client", "open stream"),
        "halftunnel_vpn.server.client_nat": ("stream opened: tcp", "halftunnel-exit", "open stream"),
    }


async def test_metrics_arrive_with_the_names_of_the_catalogue(
    running_exit, make_client, echo_server, ends, collector, until
):
    ends.start(collector.url)
    client = await pair(running_exit, make_client, ends)
    ends.client_metrics.add_counters("client", client.counters)
    ends.client_metrics.add("circuit_state", lambda: {("upstream", "canary.example", "open"): 1.0})
    assert await client.open(echo_server.port).echo(bytes(5000)) == bytes(5000)
    taken = len(collector.requests)
    await until(lambda: len(collector.requests) > taken + 4)  # a snapshot of each end that began after that
    found = collector.metrics["halftunnel-client"]
    assert {name.removeprefix(PREFIX) for name in found} <= set(METRICS)
    shown = found["halftunnel_bytes_total"].sum
    assert shown.is_monotonic and shown.aggregation_temporality == 2
    values = {
        tuple(sorted(each.value.string_value for each in point.attributes)): point.as_double
        for point in shown.data_points
    }
    assert values["sent", "upstream"] > 5000, values
    [point] = found["halftunnel_stream_latency_seconds"].histogram.data_points
    assert point.count == sum(point.bucket_counts) == 1
    assert found["halftunnel_stream_latency_seconds"].unit == "s"
    [point] = found["halftunnel_circuit_state"].gauge.data_points
    assert sorted(each.key for each in point.attributes) == ["path", "state"]


ENDLESS = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n" + bytes(300_000)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", "spans-not-taken"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 7\r\n\r\nnothing", "spans-not-taken"),
        (
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
            "spans-not-taken",
        ),
        (b"\0\xff garbage \r\n\r\n", "spans-not-taken"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff", None),
        (ENDLESS, None),
    ],
    ids=["500", "404", "redirect", "garbage", "garbage in a 200", "endless answer"],
)
async def test_a_bad_collector_costs_only_its_spans(
    running_exit, make_client, echo_server, ends, collector, monkeypatch, until, answer, reason
):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    collector.answer = answer
    ends.start(collector.url)
    client = await pair(running_exit, make_client, ends)
    assert await client.open(echo_server.port).echo(b"hello") == b"hello"
    await ends.flush()
    if reason is None:
        await until(lambda: any(received.path == "/v1/traces" for received in collector.requests))
        assert "spans-not-taken" not in ends.dropped()
    else:
        await until(lambda: ends.dropped().get(reason, 0) >= 7)
    assert await client.open(echo_server.port).echo(b"hello") == b"hello"


@pytest.mark.parametrize("way", ["down", "silent"])
async def test_a_collector_that_is_away_holds_nothing_up(
    running_exit, make_client, echo_server, ends, collector, free_port, monkeypatch, until, log_at, way
):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    written = log_at("info")
    collector.answer = None
    ends.start(collector.url if way == "silent" else f"http://127.0.0.1:{free_port()}")
    client = await pair(running_exit, make_client, ends)
    times = []
    began = time.monotonic()
    for _ in range(20):
        before = time.monotonic()
        assert await client.open(echo_server.port).echo(b"hello") == b"hello"
        times.append(time.monotonic() - before)
    await ends.flush()
    # On a busy machine one or two may take long for no fault of the collector.
    assert sorted(times)[-3] < 1.0 and time.monotonic() - began < 20
    await until(lambda: ends.dropped().get("spans-not-taken", 0) >= 100)
    assert written.getvalue().count("the collector does not take spans") == 2  # once at each end


def test_a_queue_that_is_full_drops_and_counts(collector):
    collector.answer = None
    metrics = Metrics("1")
    telemetry = Telemetry("halftunnel-client", "1", metrics, Wheel())
    telemetry.start(TelemetryConfig(enabled=True, endpoint=collector.url), {})
    try:
        for _ in range(MAX_SPANS + 5):  # nothing is sent before it is released
            telemetry.handshake_failed("test", time.monotonic())
        assert not collector.requests
        [drops] = [family for family in metrics.collect() if family.name == "halftunnel_dropped"]
        assert {each.labels["reason"]: each.value for each in drops.samples} == {"spans-queue-full": 5}
    finally:
        telemetry.close()


async def test_what_is_held_is_dropped_and_counted_at_the_end(collector, ends, until):
    config = TelemetryConfig(enabled=True, endpoint=collector.url)
    ends.client.start(config, {"OTEL_METRICS_EXPORTER": "none"})
    for _ in range(3):
        ends.client.handshake_failed("test", time.monotonic())
    ends.client.close()
    await until(lambda: ends.dropped() == {"spans-too-late": 3})
    assert not collector.requests


# --- htvpn proxy as a process -----------------------------------------------------------------------


async def socks_echo(port: int, target: int) -> bytes:
    """What an echo server on loopback says through a SOCKS5 proxy."""
    async with asyncio.timeout(60):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\x05\x01\x00" + b"\x05\x01\x00\x01\x7f\0\0\1" + target.to_bytes(2, "big") + b"hello")
        await reader.readexactly(2 + 10)
        heard = await reader.readexactly(5)
        writer.close()
        return heard


async def test_a_proxy_exports_what_it_has_when_it_ends(
    running_exit, echo_server, ends, collector, free_port, tmp_path, until
):
    ends.exit.start(TelemetryConfig(enabled=True, endpoint=collector.url, sample=1.0), {})
    ends.exit.release()
    running_exit.tracing = ends.exit
    await running_exit.start()
    keys, port = running_exit.admit(), free_port()
    profile = tmp_path / "profile.toml"
    profile.touch(mode=0o600)
    document = {
        "name": "laptop",
        "exit": {"public_key": encode_key(running_exit.keys.public)},
        "client": {"private_key": encode_key(keys.private)},
        "proxy_server": {"socks": [f"127.0.0.1:{port}"]},
        "telemetry": {"enabled": True, "endpoint": collector.url, "sample": 1},
    }
    for way in Direction:
        pem = running_exit.authorities.pem(running_exit.authority(way))
        document[way.name.lower()] = {"urls": [running_exit.url(way)], "tls": {"ca": pem}}
    profile.write_text(render(document))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "halftunnel_vpn.cli", "proxy", str(profile),
        env={**os.environ, "STATE_DIRECTORY": str(tmp_path), "OTEL_BSP_SCHEDULE_DELAY": "3600000"},
    )  # fmt: skip
    try:
        await until(running_exit.sessions)
        await until(lambda: running_exit.counted["legs-joined-downstream"])
        for _ in range(600):
            with contextlib.suppress(OSError):
                assert await socks_echo(port, echo_server.port) == b"hello"
                break
            await asyncio.sleep(0.05)  # it listens a moment after its session began
    finally:
        process.terminate()
        assert await process.wait() == 0
    await ends.flush()
    spans = by_name(collector.spans, "halftunnel-proxy"), by_name(collector.spans, "halftunnel-exit")
    for name in ("handshake", "open stream"):
        assert spans[0][name].trace == spans[1][name].trace
        assert spans[1][name].parent == spans[0][name].span
    assert "halftunnel_proxy_connections" in collector.metrics["halftunnel-proxy"]
