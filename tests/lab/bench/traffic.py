"""Traffic from the client to the target: iperf3 for TCP and UDP, wrk for HTTP. One run each."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from halftunnel_vpn.errors import HostError
from lab.target import SMALL_FILE_NAME, WEB_PORT
from lab.topology import CLIENT, TARGET, TARGET_ADDRESS, Lab

IPERF_BENCH_PORT: Final = 5301
"""Each run has a server of its own here, which serves one test and ends."""

WEB_CONNECTIONS: Final = 64
"""wrk's connections."""

GRACE: Final = 20.0
"""Seconds that a run may take longer than it measures."""

SMALL_URL: Final = f"http://{TARGET_ADDRESS}:{WEB_PORT}/{SMALL_FILE_NAME}"
"""1 kB."""


@dataclass(frozen=True, slots=True)
class TcpRun:
    """What arrived."""

    bits_per_second: float
    received_bytes: int


def tcp(lab: Lab, way: str, *, flows: int, seconds: float, warm_up: float = 0) -> TcpRun:
    """Bulk flows ``up`` or ``down``; ``warm_up`` seconds are not counted. HostError when it fails."""
    options = ["-P", str(flows)]
    if warm_up:
        options += ["-O", f"{warm_up:.0f}"]
    arrived = _iperf(lab, way, seconds, options, limit=seconds + warm_up + GRACE)
    return TcpRun(float(arrived["bits_per_second"]), int(arrived["bytes"]))


def udp(lab: Lab, way: str, *, size: int, seconds: float) -> float:
    """Datagrams of ``size`` bytes that arrive in a second, of as many as the sender can send.

    Raises HostError when it fails.
    """
    options = ["-u", "-b", "0", "-l", str(size)]
    arrived = _iperf(lab, way, seconds, options, limit=seconds + GRACE)
    return float(arrived["bytes"]) / size / float(arrived["seconds"])


@contextlib.contextmanager
def bulk_flow(lab: Lab, way: str, seconds: float) -> Iterator[None]:
    """One TCP flow as long as the block lasts, and at most ``seconds``. HostError when it fails."""
    with _iperf_server(lab):
        client = lab.start(CLIENT, _iperf_argv(way, seconds, []))
        try:
            yield
            if client.poll() is not None:
                raise HostError(f"iperf3 ended under the measurement: {_complaint(lab.output(client))}")
        finally:
            lab.stop(client)


@contextlib.contextmanager
def beside_bulk(
    lab: Lab, ways: Sequence[str], seconds: float, *, warm_up: float
) -> Iterator[Callable[[], list[float]]]:
    """One TCP flow for each of ``ways``; the block begins after ``warm_up`` seconds.

    What it gets is called at the end of the block: bits a second that arrived after the warm-up. HostError
    when a flow fails.
    """
    with contextlib.ExitStack() as stack:
        clients = []
        for number, way in enumerate(ways):
            port = IPERF_BENCH_PORT + number
            stack.enter_context(_iperf_server(lab, port))
            argv = _iperf_argv(way, seconds, ["-O", f"{warm_up:.0f}"], port)
            client = lab.start(CLIENT, argv)
            stack.callback(lab.stop, client)
            clients.append(client)
        time.sleep(warm_up)
        yield lambda: [_rate_of(lab, client, seconds + warm_up + GRACE) for client in clients]


def _rate_of(lab: Lab, client: subprocess.Popen[str], limit: float) -> float:
    with contextlib.suppress(subprocess.TimeoutExpired):
        client.wait(limit)
    return float(parse_iperf(lab.output(client))["bits_per_second"])


def requests(lab: Lab, *, seconds: float, new_connections: bool) -> float:
    """HTTP requests a second for 1 kB, over kept-alive connections or a new one each.

    Raises HostError when it fails.
    """
    argv = ["wrk", "-t1", f"-c{WEB_CONNECTIONS}", f"-d{seconds:.0f}s", "--timeout", "5s"]
    if new_connections:
        argv += ["-H", "Connection: close"]
    output = lab.run(CLIENT, [*argv, SMALL_URL], timeout=seconds + GRACE).stdout
    return parse_wrk(output)


def parse_wrk(output: str) -> float:
    """Requests a second out of what wrk prints. HostError when there were none or too many went wrong."""
    rate = re.search(r"^Requests/sec:\s+([\d.]+)", output, re.MULTILINE)
    count = re.search(r"(\d+) requests in", output)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    if not rate or not count or not int(count[1]):
        raise HostError(f"wrk says nothing of requests: {output.strip()[-200:]}")
    wrong = sum(map(int, errors.groups())) if errors else 0
    wrong += int(refused[1]) if refused else 0
    if wrong > int(count[1]) / 100:
        raise HostError(f"wrk saw {wrong} errors in {count[1]} requests")
    return float(rate[1])


def _iperf(lab: Lab, way: str, seconds: float, options: list[str], *, limit: float) -> dict[str, Any]:
    """iperf3's summary of what was received."""
    with _iperf_server(lab):
        argv = _iperf_argv(way, seconds, options)
        output = lab.run(CLIENT, argv, check=False, timeout=limit).stdout
    return parse_iperf(output)


def parse_iperf(output: str) -> dict[str, Any]:
    """The summary of what was received, out of iperf3's JSON. HostError when there is none."""
    try:
        arrived: dict[str, Any] = json.loads(output)["end"]["sum_received"]
        float(arrived["bits_per_second"]), int(arrived["bytes"]), float(arrived["seconds"])
    except (ValueError, KeyError, TypeError) as error:
        raise HostError(f"iperf3 failed: {_complaint(output)}") from error
    return arrived


def _iperf_argv(way: str, seconds: float, options: list[str], port: int = IPERF_BENCH_PORT) -> list[str]:
    argv = ["iperf3", "--client", TARGET_ADDRESS, "--port", str(port), "--json"]
    argv += ["--connect-timeout", "5000", "--time", f"{seconds:.0f}", *options]
    return [*argv, "--reverse"] if way == "down" else argv


@contextlib.contextmanager
def _iperf_server(lab: Lab, port: int = IPERF_BENCH_PORT) -> Iterator[subprocess.Popen[str]]:
    server = lab.start(TARGET, ["iperf3", "--server", "--one-off", "--port", str(port)])
    try:
        lab.wait_listening(TARGET, port)
        yield server
    finally:
        lab.stop(server)


def _complaint(output: str) -> str:
    try:
        return str(json.loads(output)["error"])
    except (ValueError, KeyError, TypeError):
        return output.strip()[-200:] or "no reason given"
