"""Metrics in a real Prometheus: rates against iperf3, the board's expressions, and alerts by real faults."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from lab.prometheus import PROFILE, SERVER, Prometheus, board_expressions
from lab.target import IPERF_PORT
from lab.topology import DOMAIN_A, DOMAIN_B, EXIT, ROAD_B, TARGET, TARGET_ADDRESS
from lab.tunnel import SHORT_TIMEOUTS

from halftunnel_vpn.protocol.certificates import make_authority, make_server_certificate

pytestmark = pytest.mark.root

RATE = 100e6
"""Bits a second that are sent: no more than a busy machine carries evenly."""

MARGIN = 8
"""Seconds of load beyond those that are measured."""

TOLERANCE = 0.08
"""iperf3 reports its start in whole seconds, and a busy machine does not keep the rate."""

MAX_FLOWS = 40

SLOW_PORT = 7777
SLOW_SERVER = f"""
import socket, threading, time
server = socket.create_server(("{TARGET_ADDRESS}", {SLOW_PORT}))
def serve(connection):
    time.sleep(3)
    connection.sendall(b"late")
    connection.close()
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""


@pytest.fixture(scope="module")
def own(new_rig) -> Iterator:
    limits = {**SHORT_TIMEOUTS["limits"], "keepalive_longest": '"1s"', "max_flows": str(MAX_FLOWS)}
    with new_rig(server=SERVER, profile={**PROFILE, "limits": limits}) as made:
        yield made


@pytest.fixture(scope="module")
def prometheus(own) -> Prometheus:
    return Prometheus(own.lab)


@pytest.mark.parametrize("way", ["up", "down"])
def test_the_rate_is_what_iperf3_measures(own, prometheus, way, request, eventually):
    seconds = request.config.getoption("--load-seconds")
    path, direction = ("upstream", "received") if way == "up" else ("downstream", "sent")
    series = f'halftunnel_bytes_total{{job="halftunnel-exit",path="{path}",direction="{direction}"}}'
    options = f"-b {RATE:.0f} -t {seconds + MARGIN}" + ("" if way == "up" else " -R")
    reports = []

    def load() -> None:
        command = f"iperf3 -J {options} -c {TARGET_ADDRESS} -p {IPERF_PORT}"
        reports.append(json.loads(own.client(command, timeout=seconds + 60)))

    thread = threading.Thread(target=load)
    thread.start()
    eventually(lambda: bool(prometheus.query(f"rate({series}[2s]) * 8 > {RATE / 10}")))
    thread.join(seconds)
    measured = prometheus.value(f"rate({series}[{seconds}s]) * 8")
    until = time.time()
    thread.join()
    assert measured == pytest.approx(carried(reports[0], until - seconds, until), rel=TOLERANCE)


def carried(report: dict[str, Any], since: float, until: float) -> float:
    """Return the bits a second between two times: on a busy machine no second is like the next."""
    began = report["start"]["timestamp"]["timesecs"]
    total = 0.0
    for interval in report["intervals"]:
        start, end = (began + interval["sum"][key] for key in ("start", "end"))
        overlap = max(0.0, min(end, until) - max(start, since))
        total += interval["sum"]["bytes"] * 8 * overlap / (end - start)
    return total / (until - since)


def test_every_expression_of_the_board_returns_data(own, prometheus):
    own.client(f"curl -sSf -o /dev/null http://{TARGET_ADDRESS}/ || true")
    own.client(f"dig +short @{TARGET_ADDRESS} target.half-tunnel.test")
    empty = [expression for expression in board_expressions("1m") if not prometheus.query(expression)]
    assert empty == []


def test_nothing_alerts_while_all_is_well(own, prometheus):
    assert prometheus.alerts() == set()
    assert own.on_exit("curl -sS http://127.0.0.1:9100/readyz") == "ready\n"


def test_each_alert_sees_its_fault(own, prometheus, eventually):
    def seen(alert: str) -> None:
        eventually(lambda: alert in prometheus.alerts(), within=60)

    own.lab.start(TARGET, ["python3", "-c", SLOW_SERVER])
    own.lab.wait_listening(TARGET, SLOW_PORT)
    # More than a twentieth of the few connections that there were, and more than there may be.
    slow = f"http://{TARGET_ADDRESS}:{SLOW_PORT}/"
    own.client(f"for i in $(seq {MAX_FLOWS + 10}); do curl -sS -m 8 {slow} & done; wait", check=False)
    seen("HalfTunnelSlowStreams")
    seen("HalfTunnelLimitReached")

    _shorten_certificates(own)
    seen("HalfTunnelCertificateExpires")

    own.on_exit(
        "nft add table inet deaf; nft 'add chain inet deaf out { type filter hook output priority 0; }'"
    )
    own.on_exit(f"nft add rule inet deaf out ip daddr {TARGET_ADDRESS} udp dport 53 drop")
    seen("HalfTunnelNotReady")
    problems = own.on_exit("curl -sS http://127.0.0.1:9100/readyz")
    assert problems.startswith("not ready\n") and "resolver: " in problems and "certificate: " in problems
    assert "egress" not in problems and "listeners" not in problems
    own.on_exit("nft delete table inet deaf")

    own.lab.lose(EXIT, ROAD_B, 1000)
    for alert in ("HalfTunnelPathDown", "HalfTunnelNotConnected", "HalfTunnelCircuitOpen"):
        seen(alert)
    own.lab.lose(EXIT, ROAD_B, 0)

    own.on_exit(
        "nft add table inet gone; nft 'add chain inet gone in { type filter hook output priority 0; }'"
    )
    own.on_exit("nft add rule inet gone in ip daddr 10.77.1.2 tcp dport 9101 reject")
    seen("HalfTunnelDown")


def _shorten_certificates(own) -> None:
    """Give both listeners certificates that are valid for two days; the exit takes them while it runs."""
    now = datetime.now(UTC)
    began, ends = now - timedelta(days=1), now + timedelta(days=2)
    for name, host in (("upstream", DOMAIN_A), ("downstream", DOMAIN_B)):
        root = make_authority("an authority", not_before=began, not_after=ends)
        made = make_server_certificate(root, [host], not_before=began, not_after=ends)
        (own.tunnel.directory / f"{name}.key").write_bytes(made.private_key)
        (own.tunnel.directory / f"{name}.pem").write_bytes(made.certificate)
