"""The laboratory itself: what reaches what, what it counts, and that nothing of it stays behind."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from lab import Lab, namespaces, start_lan_resolver, start_target, target
from lab.namespaces import CONFIGURATION
from lab.topology import (
    CLIENT,
    CLIENT_A,
    DOMAIN_A,
    DOMAIN_B,
    EXIT,
    EXIT_A,
    EXIT_A6,
    EXIT_B,
    EXIT_B6,
    HOSTS,
    LAN,
    LAN_RESOLVER,
    LAN_RESOLVER6,
    ROAD_A,
    ROAD_B,
    TARGET,
    TARGET_ADDRESS,
    TARGET_ADDRESS6,
    UPLINK,
)

from halftunnel_vpn.errors import HostError

pytestmark = pytest.mark.root


@pytest.fixture
def ping(lab: Lab) -> Callable[..., int]:
    """How many of some pings were answered."""

    def send(host: str, destination: str, *options: str, count: int = 1) -> int:
        argv = ["ping", "-q", "-n", "-c", str(count), "-i", "0.01", "-W", "2", *options, destination]
        output = lab.run(host, argv, check=False).stdout
        return int(output.split(" received")[0].split()[-1]) if " received" in output else 0

    return send


def remains(label: str) -> list[str]:
    """Namespaces, directories and configuration whose name begins so."""
    parents = (Path("/run/netns"), CONFIGURATION, Path(tempfile.gettempdir()))
    return [str(path) for parent in parents for path in parent.glob(f"{label}-*")]


def runs(pid: str) -> bool:
    """Whether the process does anything still; one that ended may wait for its parent to notice."""
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_each_reaches_its_neighbours_and_the_target_is_out_of_the_clients_reach(
    ping: Callable[..., int],
) -> None:
    for destination in (EXIT_A, EXIT_A6, EXIT_B, EXIT_B6, LAN_RESOLVER, LAN_RESOLVER6):
        assert ping(CLIENT, destination) == 1, destination
    for destination in (TARGET_ADDRESS, TARGET_ADDRESS6):
        assert ping(EXIT, destination) == 1, destination
        assert ping(CLIENT, destination, "-W", "0.3") == 0, destination


def test_the_client_has_a_default_route_to_win_against(lab: Lab) -> None:
    for family in ("-4", "-6"):
        shown = lab.run(CLIENT, ["ip", family, "route", "show", "default"]).stdout
        assert f"dev {ROAD_A}" in shown


def test_the_exit_may_ping_without_privileges(lab: Lab) -> None:
    setting = lab.run(EXIT, ["cat", "/proc/sys/net/ipv4/ping_group_range"]).stdout
    assert setting.split() == ["0", "2147483647"]


def test_each_host_has_a_resolver_and_the_domains_names(lab: Lab) -> None:
    real = Path("/etc/resolv.conf").read_bytes()
    assert lab.run(CLIENT, ["cat", "/etc/resolv.conf"]).stdout == f"nameserver {LAN_RESOLVER}\n"
    assert lab.run(EXIT, ["cat", "/etc/resolv.conf"]).stdout == f"nameserver {TARGET_ADDRESS}\n"
    for name, address in ((DOMAIN_A, EXIT_A), (DOMAIN_B, EXIT_B)):
        assert lab.run(CLIENT, ["getent", "ahostsv4", name]).stdout.startswith(f"{address} ")
    assert Path("/etc/resolv.conf").read_bytes() == real


def test_a_link_counts_what_it_carried(
    lab: Lab, ping: Callable[..., int], eventually: Callable[..., None]
) -> None:
    before = lab.counters(CLIENT, ROAD_B), lab.counters(EXIT, ROAD_B), lab.counters(CLIENT, ROAD_A)
    assert ping(CLIENT, EXIT_B, "-s", "1000", count=20) > 0
    pings = 20 * 1042
    assert pings <= (lab.counters(CLIENT, ROAD_B) - before[0]).sent_bytes < 1.5 * pings
    assert pings <= (lab.counters(EXIT, ROAD_B) - before[1]).received_bytes < 1.5 * pings
    assert (lab.counters(CLIENT, ROAD_A) - before[2]).sent_bytes < pings / 2

    def agree() -> bool:
        """Each kernel may send a packet of its own at any time, also between the two readings."""
        here, there = lab.counters(CLIENT, ROAD_B), lab.counters(EXIT, ROAD_B)
        return (there.received_bytes, there.received_packets) == (here.sent_bytes, here.sent_packets)

    eventually(agree)


def test_a_link_can_be_made_worse_and_better(lab: Lab, ping: Callable[..., int]) -> None:
    lab.lose(EXIT, ROAD_A, 500)
    assert 20 < ping(CLIENT, EXIT_A, count=100) < 80
    lab.lose(EXIT, ROAD_A, 1000)
    assert ping(CLIENT, EXIT_A, "-W", "0.3") == 0
    assert ping(CLIENT, EXIT_B) == 1
    lab.lose(EXIT, ROAD_A, 0)
    # ping does not wait long for the last answer, which a busy machine may keep it from seeing in time
    assert max(ping(CLIENT, EXIT_A, count=20) for _ in range(3)) == 20
    assert lab.run(EXIT, ["nft", "list", "ruleset"]).stdout == ""


def test_a_rate_holds(lab: Lab) -> None:
    start_target(lab)
    lab.limit_rate(TARGET, UPLINK, "400mbit")
    ask = ["curl", "-s", "-o", "/dev/null", "-w", "%{time_total}"]

    def seconds() -> float:
        return float(lab.run(EXIT, [*ask, f"http://{TARGET_ADDRESS}/large.bin"]).stdout)

    slow = seconds()
    assert slow > 1.9, "100 MB at 400 Mbit/s"
    lab.limit_rate(TARGET, UPLINK, None)
    assert min(seconds() for _ in range(3)) < slow


@pytest.mark.parametrize("server", ["nginx", "python"])
def test_the_target_serves_a_large_file_and_takes_uploads(
    lab: Lab, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if server == "python":
        monkeypatch.setattr(target, "_SEARCH_PATH", "/nowhere")  # as where nginx is not installed
    served = start_target(lab)
    assert served.web_server == server
    assert served.has_iperf3 == (server == "nginx")
    copy = lab.directory / "copy"
    for url in (served.file_url, served.file_url6):
        lab.run(EXIT, ["curl", "-sgf", "-o", str(copy), url])
        assert hashlib.sha256(copy.read_bytes()).hexdigest() == served.file_sha256
    assert lab.run(EXIT, ["curl", "-sf", f"http://{TARGET_ADDRESS}/small.txt"]).stdout == "x" * 1000
    put = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-T", str(copy)]
    assert lab.run(EXIT, [*put, f"http://{TARGET_ADDRESS}/upload/up.bin"]).stdout == "201"
    assert hashlib.sha256((served.uploads / "up.bin").read_bytes()).hexdigest() == served.file_sha256
    missing = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"http://{TARGET_ADDRESS}/absent"]
    assert lab.run(EXIT, missing).stdout == "404"


def test_iperf3_measures(lab: Lab) -> None:
    start_target(lab)
    assert "receiver" in lab.run(EXIT, ["iperf3", "-c", TARGET_ADDRESS, "-n", "10M"]).stdout


@pytest.mark.parametrize("server", [TARGET_ADDRESS, TARGET_ADDRESS6])
@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
def test_the_targets_nameserver_answers(lab: Lab, server: str, transport: str) -> None:
    start_target(lab)

    def dig(*words: str) -> str:
        return lab.run(EXIT, ["dig", f"@{server}", transport, "+tries=1", "+time=20", *words]).stdout

    assert dig("+short", "target.test").split() == [TARGET_ADDRESS]
    assert dig("+short", "TARGET.test", "AAAA").split() == [TARGET_ADDRESS6]
    assert dig("+short", "www.target.test").split() == ["web.target.test.", "target.test.", TARGET_ADDRESS]
    assert dig("+short", "who.test", "TXT") == '"target"\n'
    assert "status: NXDOMAIN" in dig("absent.test")
    assert "SOA" in dig("absent.test")
    no_data = dig("only4.target.test", "AAAA")
    assert "status: NOERROR" in no_data and "ANSWER: 0" in no_data
    assert dig("+short", "big.target.test", "TXT").count("x") == 4000
    truncated = dig("+ignore", "+noedns", "big.target.test", "TXT")
    assert (" tc " in truncated.replace(";", " ")) == (transport == "+notcp")


def test_the_lans_resolver_notes_who_asked_and_answers_otherwise(lab: Lab) -> None:
    notes = start_lan_resolver(lab)
    assert lab.run(CLIENT, ["dig", "+short", "target.test"]).stdout == "192.168.77.66\n"
    assert lab.run(CLIENT, ["dig", "+short", "+tcp", "who.test", "TXT"]).stdout == '"lan"\n'
    assert notes.read_text() == "udp 192.168.77.2 target.test A\ntcp 192.168.77.2 who.test TXT\n"


def test_a_command_that_fails_says_where_and_why(lab: Lab) -> None:
    with pytest.raises(HostError, match=r"`ls /absent` on exit ended with 2: .*No such file"):
        lab.run(EXIT, ["ls", "/absent"])
    assert lab.run(EXIT, ["ls", "/absent"], check=False).returncode == 2
    assert lab.run(EXIT, ["cat"], input="words").stdout == "words"
    with pytest.raises(HostError, match=r"Nothing listens on port 99 of exit after 0 s\."):
        lab.wait_listening(EXIT, 99, timeout=0)


def test_a_started_process_ends_with_the_lab_even_if_it_will_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namespaces, "END_TIMEOUT", 0.5)
    stubborn = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    )
    with Lab() as lab:
        process = lab.start(EXIT, [sys.executable, "-c", stubborn])
        while lab.output(process) != "up\n":
            time.sleep(0.01)
        # a child that its parent has left behind counts as well
        lab.run(TARGET, ["sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $! >" + str(tmp_path / "pid")])
        label = lab.namespace("").rstrip("-")
        assert len(remains(label)) == 2 * len(HOSTS) + 1
    assert process.returncode == -signal.SIGKILL
    assert not runs((tmp_path / "pid").read_text().strip())
    assert remains(label) == []


def test_commands_have_sessions_of_their_own_where_that_is_asked_for() -> None:
    of_mine = "import os; print(os.getsid(0), flush=True)"
    with Lab() as lab:
        assert int(lab.python(EXIT, of_mine).stdout) == os.getsid(0)
        assert os.getsid(lab.start(EXIT, ["sleep", "60"]).pid) == os.getsid(0)
    with Lab(own_sessions=True) as lab:
        started = [lab.start(host, ["sleep", "60"]).pid for host in (CLIENT, EXIT)]
        assert [os.getsid(pid) for pid in started] == started
        assert int(lab.python(EXIT, of_mine).stdout) not in (os.getsid(0), *started)
        label = lab.namespace("").rstrip("-")
    assert remains(label) == []


def test_two_labs_live_side_by_side(lab: Lab, ping: Callable[..., int]) -> None:
    with Lab() as second:
        assert second.namespace(CLIENT) != lab.namespace(CLIENT)
        second.lose(EXIT, ROAD_A, 1000)
        assert ping(CLIENT, EXIT_A) == 1
    assert ping(CLIENT, EXIT_A) == 1


def test_an_error_leaves_nothing_behind() -> None:
    labels = []
    with pytest.raises(RuntimeError, match="on purpose"), Lab() as lab:
        labels.append(lab.namespace("").rstrip("-"))
        raise RuntimeError("on purpose")
    assert remains(labels[0]) == []


def test_being_inside_ends_also_with_an_error(lab: Lab) -> None:
    def namespace() -> int:
        return os.stat("/proc/thread-self/ns/net").st_ino

    before = namespace()
    with pytest.raises(ZeroDivisionError), lab.inside(LAN):
        assert namespace() != before
        raise ZeroDivisionError
    assert namespace() == before


PROGRAM = """
import signal, sys, time
from lab import Lab
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
with Lab() as lab:
    lab.start("target", ["sleep", "60"])
    if "keep" in sys.argv:
        lab.keep()
    print(lab.namespace("").rstrip("-"), flush=True)
    if "keep" not in sys.argv:
        time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_a_signal_leaves_nothing_behind_or_what_the_next_one_sweeps_up(
    number: signal.Signals, sweeping: Callable[[], contextlib.AbstractContextManager[None]]
) -> None:
    command = [sys.executable, "-c", PROGRAM]
    with (
        sweeping(),
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=Lab.environment()
        ) as process,
    ):
        assert process.stdout is not None
        label = process.stdout.readline().strip()
        assert len(remains(label)) == 2 * len(HOSTS) + 1
        process.send_signal(number)
    if number in (signal.SIGTERM, signal.SIGHUP):
        assert process.returncode == 128 + number
    if number == signal.SIGKILL:
        assert len(remains(label)) == 2 * len(HOSTS) + 1
        assert set(Lab.sweep()) >= {f"{label}-{host}" for host in HOSTS}
    assert remains(label) == []


def test_a_kept_lab_stays_up_until_it_is_swept(
    lab: Lab, sweeping: Callable[[], contextlib.AbstractContextManager[None]]
) -> None:
    with sweeping():
        keep_and_sweep(lab)


def keep_and_sweep(lab: Lab) -> None:
    command = [sys.executable, "-c", PROGRAM, "keep"]
    ended = subprocess.run(command, capture_output=True, text=True, env=Lab.environment(), check=True)
    label = ended.stdout.strip()
    inside = ["ip", "netns", "exec", f"{label}-{CLIENT}", "ping", "-c1", EXIT_A]
    assert subprocess.run(inside, capture_output=True, check=False).returncode == 0
    swept = Lab.sweep()
    assert f"{label}-{CLIENT}" in swept
    assert lab.namespace(CLIENT) not in swept, "this one lives"
    assert remains(label) == []
    assert lab.run(CLIENT, ["ping", "-c1", "-W1", CLIENT_A]).returncode == 0
