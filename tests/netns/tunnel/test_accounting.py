"""Two clients of one exit: what is counted, a rate, a quota, and being told why."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator

import pytest
from lab.target import FILE_SIZE, IPERF_PORT
from lab.topology import EXIT, TARGET_ADDRESS, UPLINK

pytestmark = pytest.mark.root

SOCKS = 1080
MB = 1_000_000


@pytest.fixture(scope="module")
def own(new_rig) -> Iterator:
    """The tunnel of `laptop`, and beside it `desk`, whose programs use a proxy."""
    with new_rig() as made:
        profile = made.lab.directory / "desk.toml"
        made.tunnel.add_client("desk", profile)
        argv = ["python", "-m", "halftunnel_vpn.cli", "proxy", str(profile), "--socks", f"127.0.0.1:{SOCKS}"]
        proxy = made.lab.start(EXIT, argv, env={"STATE_DIRECTORY": str(made.lab.directory)})
        made.lab.wait_listening(EXIT, SOCKS)
        yield made
        made.lab.stop(proxy)


def server(rig, *words: str) -> str:
    return rig.tunnel.htvpn(EXIT, "server", *words, "--dir", str(rig.tunnel.directory))


def client(rig, name: str) -> dict:
    rows = json.loads(server(rig, "clients", "--json"))["clients"]
    return next(row for row in rows if row["name"] == name)


def iperf3(rig, options: str, *, check: bool = True) -> dict:
    said = rig.client(f"iperf3 -J -c {TARGET_ADDRESS} -p {IPERF_PORT} {options}", check=check, timeout=120)
    return json.loads(said[said.index("{") :])


def download(rig) -> int:
    """Fetch the large file as `desk`; return its size."""
    url = rig.target.file_url
    return int(
        rig.on_exit(f"curl -sSf -x socks5h://127.0.0.1:{SOCKS} -o /dev/null -w '%{{size_download}}' {url}")
    )


def test_bytes_of_each_client_are_what_the_kernel_counts(own, eventually):
    before = own.lab.counters(EXIT, UPLINK)
    reports = []
    thread = threading.Thread(target=lambda: reports.append(iperf3(own, "-n 60M")))
    thread.start()
    size = download(own)
    thread.join()
    sent = reports[0]["end"]["sum_received"]["bytes"]
    eventually(lambda: client(own, "laptop")["today"][0] >= sent * 0.98)
    eventually(lambda: client(own, "desk")["today"][1] >= size * 0.98)
    kernel = own.lab.counters(EXIT, UPLINK) - before
    laptop, desk = client(own, "laptop"), client(own, "desk")
    assert size == FILE_SIZE
    # What iperf3 has sent beyond its limit arrives, but is not in the receiver's report.
    assert sent * 0.98 <= laptop["month"][0] <= reports[0]["end"]["sum_sent"]["bytes"] * 1.02
    assert desk["month"][1] == pytest.approx(size, rel=0.02)
    # The kernel counts headers as well: of frames as large as offloads make them.
    assert laptop["month"][0] + desk["month"][0] == pytest.approx(kernel.sent_bytes, rel=0.02)
    assert laptop["online"] and desk["online"] and laptop["refused"] is None
    assert laptop["legs"] >= 2, "one more where a path loses, as it does on a busy machine"


@pytest.mark.alone
@pytest.mark.parametrize("way", ["", "-R"], ids=["up", "down"])
def test_a_rate_holds_and_harms_nobody_else(own, way):
    server(own, "client", "laptop", "rate", "20mbit")
    reports = []
    thread = threading.Thread(target=lambda: reports.append(iperf3(own, f"-t 5 -O 1 {way}")))
    thread.start()
    began = time.monotonic()
    size = download(own)
    other = size * 8 / (time.monotonic() - began)
    thread.join()
    server(own, "client", "laptop", "rate", "never")
    assert reports[0]["end"]["sum_received"]["bits_per_second"] == pytest.approx(20e6, rel=0.05)
    assert other > 60e6, "the other client is as fast as this machine is"


def test_a_quota_ends_flows_and_the_client_is_told_why(own, eventually):
    used = sum(client(own, "laptop")["month"])
    server(own, "client", "laptop", "quota", f"{used + 20 * MB}B/month")
    ended: list[float] = []

    def load() -> None:
        iperf3(own, "-b 80M -t 60", check=False)
        ended.append(time.monotonic())

    thread = threading.Thread(target=load)
    thread.start()
    eventually(lambda: sum(client(own, "laptop")["month"]) >= used + 20 * MB)
    crossed = time.monotonic()
    thread.join(60)
    assert ended and ended[0] - crossed < 20, "not at the end of its minute"
    assert sum(client(own, "laptop")["month"]) < used + 40 * MB
    assert client(own, "laptop")["refused"] == "quota used up" and not client(own, "laptop")["online"]
    eventually(lambda: any("used up its bytes" in notice for notice in own.tunnel.status()["notices"]))
    assert client(own, "desk")["online"], "nobody else is concerned"

    server(own, "client", "laptop", "quota", "never")
    own.tunnel.htvpn("client", "reconnect", "--socket", str(own.tunnel.socket))
    own.tunnel.wait_connected()


def test_the_exit_speaks_for_itself(own):
    report = json.loads(server(own, "status", "--json"))
    assert report["clients"] == report["online"] == 2 and report["streams"] >= 0
    sessions = json.loads(server(own, "sessions", "--json"))["sessions"]
    assert {row["client"] for row in sessions} == {"laptop", "desk"}
    table = server(own, "clients")
    assert table.startswith("CLIENT") and "laptop  online" in table and "desk    online" in table
    assert "up for" in server(own, "status") and "laptop" in server(own, "sessions")
