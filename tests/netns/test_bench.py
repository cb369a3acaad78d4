"""The benchmark in small: the long road is as long as it says, and a run fills its rows."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab import Lab, congestion
from lab.bench import flows, latency, roads, rows, traffic
from lab.bench.everyday import EVERYDAY
from lab.bench.measurements import LINE, Measurement, Scale, matching
from lab.bench.peers import Direct, HalfTunnel, Peer
from lab.bench.results import Results
from lab.bench.runner import Runner
from lab.bench.summary import percentile
from lab.namespaces import CONFIGURATION
from lab.target import start_target
from lab.topology import CLIENT, EXIT_A, EXIT_B, HOSTS, TARGET, TARGET_ADDRESS

from halftunnel_vpn.errors import HostError

pytestmark = pytest.mark.root


@pytest.mark.alone
def test_the_long_road_has_a_delay_a_rate_and_loss(lab: Lab) -> None:
    start_target(lab)
    roads.lengthen(lab)
    for address in (EXIT_A, EXIT_B):
        output = lab.run(CLIENT, ["ping", "-c", "20", "-i", "0.02", address]).stdout
        least = min(latency.parse_ping(output))
        assert rows.ROAD_DELAY * 1000 <= least < rows.ROAD_DELAY * 1000 + 20
    Direct(lab).set_up()
    ask = ["curl", "-s", "-o", "/dev/null", "-w", "%{time_total}", f"http://{TARGET_ADDRESS}/large.bin"]
    seconds = float(lab.run(CLIENT, ask).stdout)
    assert seconds > 100e6 * 8 / rows.ROAD_RATE, "100 MB cannot be faster"
    roads.set_loss(lab, 300)
    output = lab.run(CLIENT, ["ping", "-c", "100", "-i", "0.01", "-W", "1", EXIT_B], check=False).stdout
    assert 20 < len(latency.parse_ping(output)) < 80, "0.7 * 0.7 of 100 come back"
    roads.set_loss(lab, 0)
    assert lab.run(CLIENT, ["nft", "list", "ruleset"]).stdout == ""


def test_the_hosts_of_a_lab_have_the_congestion_control_that_is_asked_for_and_nobody_else(lab: Lab) -> None:
    settings = Path("/proc/sys/net/ipv4")
    names = ("tcp_congestion_control", "tcp_allowed_congestion_control")
    before = [(settings / name).read_text() for name in names]
    for wanted in congestion.available():
        congestion.use(lab, wanted)
        for host in HOSTS:
            assert lab.run(host, ["cat", str(settings / names[0])]).stdout.strip() == wanted
    with pytest.raises(HostError, match="cannot use the congestion control nonesuch"):
        congestion.use(lab, "nonesuch")
    assert [(settings / name).read_text() for name in names] == before


def test_without_a_tunnel_the_exit_forwards_and_many_flows_can_be_held(lab: Lab) -> None:
    start_target(lab, file_size=1000)
    direct = Direct(lab)
    assert direct.set_up() < 30
    assert percentile(latency.pings(lab, 0.2), 0.5) < 1000
    with flows.held(lab, 300):
        established = lab.run(CLIENT, ["ss", "-Htn", "state", "established"]).stdout.splitlines()
        assert len(established) == 300


def test_each_program_of_a_run_has_a_session_of_its_own(eventually: Callable[..., None]) -> None:
    sessions: list[int] = []

    def look(peer: Peer, scale: Scale) -> dict[str, float]:
        names = [f"/run/netns/{peer.lab.namespace(host)}" for host in (CLIENT, TARGET)]
        hosts = {os.stat(name).st_ino for name in names}

        def all_run() -> bool:
            """A process that was started a moment ago still has the name and the network of its starter."""
            sessions[:] = [sid for net, sid in _iperf3_processes() if net in hosts]
            return len(sessions) == 3

        with traffic.bulk_flow(peer.lab, "up", 90):
            eventually(all_run, within=60)
        return {}

    results = Results({}, {})
    with contextlib.redirect_stderr(io.StringIO()):
        Runner(results, Scale(1, 1, 1), 1).run([Direct], [Measurement("look", (), look)], road=False)
    assert results.failures == []
    assert len(sessions) == 3, "iperf3's client, the target's server and the measurement's own"
    assert len({*sessions, os.getsid(0)}) == 4


def _iperf3_processes() -> Iterator[tuple[int, int]]:
    """The network and the session of each."""
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if (path / "comm").read_text() == "iperf3\n":
                yield (path / "ns/net").stat().st_ino, os.getsid(int(path.name))


@pytest.mark.alone
def test_a_ping_beside_bulk_is_short_on_a_slow_line() -> None:
    """Without a pace it takes half a second here, and 190 ms more where the network's queue were full."""
    row = rows.line_row("2-20-200", "down", "cubic")
    results = Results({}, {})
    with contextlib.redirect_stderr(io.StringIO()):
        line = matching(LINE, [row])
        Runner(results, Scale(1, 3, 3), 1).run([HalfTunnel], line, road=True)
    assert results.failures == []
    (ping,), (rate,) = (results.values[name][HalfTunnel.id] for name in (row, f"{row}-rate"))
    assert ping < 250
    assert rate > 1.2


@pytest.mark.alone
def test_pages_names_a_clone_and_a_call_are_timed_through_the_tunnel() -> None:
    results = Results({}, {})
    chosen = matching(EVERYDAY, ["page-0", "first-byte", "dns", "clone", "call"])
    with contextlib.redirect_stderr(io.StringIO()):
        Runner(results, Scale(0.5, 0.5, 0.5), 1).run([HalfTunnel], chosen, road=True)
    assert results.failures == []
    found = {row: peers[HalfTunnel.id][0] for row, peers in results.values.items()}
    assert found.keys() == {row for each in chosen for row in each.rows}
    assert found["dns-again"] < found["dns-new"], "the second question is answered from the cache"
    assert found["first-byte-again"] < found["first-byte-new"], "and the second SYN at once"
    for row in ("dns-new", "first-byte-new", "first-byte-again", "page-0-new", "page-0-again", "clone"):
        in_milliseconds = rows.BY_ID[row].unit == "ms"
        assert found[row] * (1 if in_milliseconds else 1000) >= rows.EVERYDAY_LINE.delay * 1000
    assert found["call-down-p99"] >= rows.EVERYDAY_LINE.delay * 500


def test_a_run_fills_its_rows_and_leaves_nothing_behind(tmp_path: Path) -> None:
    document, drawing = tmp_path / "bench.json", tmp_path / "bench.svg"
    command = [
        sys.executable, "-m", "lab.bench", "--quick", "--peers", "direct", "ours",
        "--rows", "tcp-1-up", "udp-1200-down", "ping-idle", "start",
        "--json", str(document), "--svg", str(drawing),
    ]  # fmt: skip
    with subprocess.Popen(
        command, env=Lab.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        table, progress = process.communicate(timeout=280)
    assert process.returncode == 0, progress + table
    found = {row["id"]: set(row["peers"]) for row in json.loads(document.read_text())["rows"]}
    both = {"direct", "ours"}
    assert found == {
        "tcp-1-up": both, "udp-1200-down": both, "ping-idle": both, "ping-idle-p99": both,
        "cpu-up-client": {"ours"}, "cpu-up-exit": {"ours"}, "start": {"ours"},
    }  # fmt: skip
    assert "| TCP, 1 flow, up, Gbit/s" in table
    assert drawing.read_text().startswith("<svg ")
    for parent in (Path("/run/netns"), CONFIGURATION, Path(tempfile.gettempdir())):
        assert not list(parent.glob(f"htlab-{process.pid}-*"))
