"""The daemon in the lab: up, down, killed, robbed of its table, its device, its exit; never a gap."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from lab import Lab
from lab.daemon import STATE_TIMEOUT, LabDaemon
from lab.target import FILE_NAME, start_target
from lab.topology import CLIENT, EXIT, EXIT_A, TARGET_ADDRESS
from lab.tunnel import SHORT_TIMEOUTS, LabTunnel, edit

from halftunnel_vpn.client.backoff import FIRST_DELAY
from halftunnel_vpn.errors import HostError

pytestmark = pytest.mark.root

LEARNT = {"keepalive.json", "handshake-times.json"}
"""Files that may stay."""

METRICS = "127.0.0.1:9101"

CONNECTION_REFUSED = 7
"""Exit code of curl."""

GUARDED = {"protection": {"kill_switch": '"on"', "allow_lan": "false"}}


@pytest.fixture(scope="module")
def lab(no_leftovers):
    """One for all tests here: each leaves the client as it was."""
    with Lab() as made:
        start_target(made)
        yield made


@pytest.fixture(scope="module")
def tunnel(lab):
    """A running exit, and profiles for it."""
    made = LabTunnel(lab, profile={**SHORT_TIMEOUTS, **GUARDED})
    made.start_exit()
    return made


@pytest.fixture(scope="module")
def shared(tunnel, lab):
    return LabDaemon(lab, tunnel.profile)


@pytest.fixture
def daemon(shared, snapshot):
    """Running, nothing up; in the end everything is as it was, whatever the test has done."""
    before = snapshot()
    shared.start()
    yield shared
    if shared.process.poll() is None:
        shared.down()
        assert shared.stop() == 0, shared.output()
    assert snapshot() == before
    assert "Traceback" not in shared.output()
    left = {path.name for path in shared.state_directory.iterdir()} - LEARNT
    assert left - {"keepalive.json", "handshake-times.json"} == {"host.lock", "wanted.json"}, (
        "what is learnt stays"
    )


def around(device="road-a", address=TARGET_ADDRESS):
    """What a program meets that goes around the tunnel, through a device."""
    with socket.socket() as connection:
        connection.settimeout(2)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        return connection.connect_ex((address, 80))


def fetch(lab, *, check=True):
    """A page of the target's, as any program of the client gets it."""
    seconds = "30" if check else "3"  # nothing is going to answer one that may fail
    command = ["curl", "-sSf", "--max-time", seconds, "-o", "/dev/null", f"http://{TARGET_ADDRESS}/small.txt"]
    return lab.run(CLIENT, command, check=check).returncode == 0


def test_up_and_down(lab, daemon):
    assert daemon.status()["state"] == "disconnected"
    daemon.up()
    status = daemon.wait_state("connected")
    assert status["profile"] == "laptop" and status["device"] == "htvpn0" and status["sentence"] is None
    assert status["protection"] == {
        "kill_switch": "on", "active": True, "verified": True, "inbound": True,
    }  # fmt: skip
    assert fetch(lab) and around() == errno.ECONNREFUSED
    daemon.up("laptop")  # no error, and nothing happens
    daemon.down()
    daemon.down()
    states = [event["state"] for event in daemon.events()]
    assert states == ["connecting", "connected", "disconnecting", "disconnected"]
    with pytest.raises(HostError, match="nothing is up"):
        daemon.command("POST", "/v1/reconnect")
    with pytest.raises(HostError, match="there is no profile nobody"):
        daemon.up("nobody")


def received(lab):
    """Bytes that the client has received on its downstream path, by its metrics."""
    text = lab.run(CLIENT, ["curl", "-sSf", "--max-time", "10", f"http://{METRICS}/metrics"]).stdout
    name = 'halftunnel_bytes_total{direction="received",path="downstream"} '
    return float(next(line for line in text.splitlines() if line.startswith(name)).removeprefix(name))


def test_a_profile_serves_its_metrics_while_it_is_up(lab, daemon, tunnel):
    text = f'{tunnel.profile.read_text()}\n[metrics]\nlisten = "{METRICS}"\n'
    daemon.add_profile("measured", text)
    daemon.up("measured")
    daemon.wait_state("connected")
    url = f"http://{TARGET_ADDRESS}/{FILE_NAME}"
    transfer = lab.start(CLIENT, ["curl", "-sS", "--limit-rate", "5M", "-o", "/dev/null", url])
    seen = [received(lab)]
    while len(seen) < 4:  # the test's own time limit bounds it
        now = received(lab)
        if now > seen[-1] + 100_000:
            seen.append(now)
    assert transfer.poll() is None, "all this while the transfer runs"
    lab.stop(transfer)
    ready = lab.run(CLIENT, ["curl", "-sS", f"http://{METRICS}/readyz"]).stdout
    assert ready == "ready\n"
    daemon.down()
    refused = lab.run(CLIENT, ["curl", "-sS", f"http://{METRICS}/metrics"], check=False)
    assert refused.returncode == CONNECTION_REFUSED
    daemon.up("laptop")  # this profile wants none
    daemon.wait_state("connected")
    refused = lab.run(CLIENT, ["curl", "-sS", f"http://{METRICS}/metrics"], check=False)
    assert refused.returncode == CONNECTION_REFUSED


def test_a_down_is_carried_out_whatever_comes_between(lab, daemon):
    with ThreadPoolExecutor(1) as pool:
        up = pool.submit(daemon.up)
        while not wanted(daemon)["up"]:
            time.sleep(0.001)  # now it puts the kill switch in place, and after that it begins to connect
        daemon.down()
        up.result()
    assert daemon.status()["state"] == "disconnected" and not wanted(daemon)["up"]
    assert not daemon.status()["protection"]["active"]

    daemon.up()
    daemon.wait_state("connected")
    daemon.command("POST", "/v1/down")
    assert daemon.stop() == 0  # before everything was put back
    assert around() != errno.ECONNREFUSED, "the kill switch was on until down"
    assert not (daemon.state_directory / "protection.json").exists()


def wanted(daemon):
    """What the daemon remembers for its next start."""
    try:
        return json.loads((daemon.state_directory / "wanted.json").read_text())
    except FileNotFoundError:
        return {"up": False}


def test_killed_it_leaves_no_gap_and_goes_up_again_by_itself(lab, daemon):
    daemon.up()
    daemon.wait_state("connected")
    daemon.kill()
    assert around() == errno.ECONNREFUSED and not fetch(lab, check=False)
    daemon.start()
    assert around() == errno.ECONNREFUSED
    daemon.wait_state("connected")
    assert fetch(lab) and around() == errno.ECONNREFUSED
    assert daemon.stop() == 0
    assert around() == errno.ECONNREFUSED, "nobody has said down"
    daemon.start()
    daemon.wait_state("connected")


HARMS = (
    "nft flush ruleset",
    "ip link del htvpn0",
    "ip route flush table 18516",
    "ip rule del priority 18908",
    "ip -6 rule del priority 18908",
    "ip address flush dev htvpn0",
    "ip link set dev htvpn0 down",
)


def told(daemon) -> int:
    """How often the daemon has said that it mended something."""
    return daemon.output().count("another program changed the host; repaired")


def test_what_others_undo_is_mended(lab, daemon, snapshot):
    daemon.up()
    daemon.wait_state("connected")
    up = snapshot()
    up.pop("ip address")  # has the device's index
    for number, harm in enumerate(HARMS, 1):
        lab.run(CLIENT, harm.split())
        deadline = time.monotonic() + 60
        while (now := snapshot()) | up != now or not fetch(lab, check=False) or told(daemon) < number:
            assert time.monotonic() < deadline, f"{harm}\n{daemon.output()}"
        assert around() == errno.ECONNREFUSED
    assert daemon.status()["session"] == 1, "the session goes on"


def test_a_table_that_is_flushed_while_all_is_blocked_is_put_back(lab, tunnel, daemon):
    tunnel.stop_exit()
    try:
        daemon.up()
        status = daemon.wait_state("blocked")
        assert "nothing listens there" in status["sentence"]
        assert around() == errno.ECONNREFUSED
        lab.run(CLIENT, ["nft", "flush", "ruleset"])
        deadline = time.monotonic() + 60
        while around() != errno.ECONNREFUSED:
            assert time.monotonic() < deadline
    finally:
        tunnel.start_exit()
    daemon.wait_state("connected")
    assert fetch(lab)


def test_an_exit_that_goes_and_comes_back(lab, tunnel, daemon):
    daemon.up()
    daemon.wait_state("connected")
    began = time.monotonic()
    tunnel.stop_exit()
    try:
        status = daemon.wait_state("reconnecting")
        assert status["lost"] == ["upstream", "downstream"]
        assert around() == errno.ECONNREFUSED and not fetch(lab, check=False)
    finally:
        tunnel.start_exit()
    longest_pause = FIRST_DELAY + 2 * (time.monotonic() - began)  # it may just have begun
    daemon.wait_state("connected", timeout=longest_pause + STATE_TIMEOUT)
    assert fetch(lab)


PORTAL = """
import http.server, socket
class Portal(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(302)
        self.send_header("Location", "http://login.example/?from=here")
        self.end_headers()
http.server.HTTPServer(("0.0.0.0", 80), Portal).serve_forever()
"""
SIGN_IN = (
    "A captive portal stands in the way (it sends to login.example): run `htvpn portal`, open any http://"
)


def signs_in(lab):
    """What a program of the client's that knows nothing of tunnels gets from the portal: a status, or ""."""
    command = ["curl", "-s", "--max-time", "5", "-o", "/dev/null", "-w", "%{http_code}", f"http://{EXIT_A}/"]
    return lab.run(CLIENT, command, check=False).stdout.replace("000", "")


def test_a_captive_portal_is_named_and_opened_on_demand(lab, tunnel, daemon, eventually):
    portal = lab.start(EXIT, [sys.executable, "-c", PORTAL])
    lab.wait_listening(EXIT, 80)
    tunnel.stop_exit()
    try:
        daemon.up()
        status = daemon.wait_state("blocked")
        assert status["sentence"].startswith(SIGN_IN)
        assert signs_in(lab) == ""
        daemon.command("POST", "/v1/portal", {"seconds": 60})
        assert signs_in(lab) == "302"
        tunnel.start_exit()
        assert daemon.wait_state("connected")["sentence"] is None
        assert around(address=EXIT_A) == errno.ECONNREFUSED, "what was open for the portal is shut"

        # the host wakes up in a hotel, and the tunnel is still there
        tunnel.stop_exit()
        eventually(lambda: (daemon.status()["sentence"] or "").startswith(SIGN_IN))
        assert daemon.status()["state"] == "reconnecting"
        daemon.command("POST", "/v1/portal", {"seconds": 60})
        assert daemon.wait_state("blocked")["sentence"].startswith(SIGN_IN)
        eventually(lambda: signs_in(lab) == "302")
    finally:
        tunnel.start_exit()
        daemon.wait_state("connected")
        lab.stop(portal)
    assert "login.example" not in daemon.output(), "a destination"
    assert daemon.output().count("a captive portal stands in the way") >= 2


def test_down_works_in_every_state(lab, tunnel, daemon):
    lab.lose("exit", "road-a", 1000)
    try:
        daemon.up()
        daemon.wait_state("connecting")
        daemon.down()
        daemon.up()
        daemon.wait_state("blocked")
        daemon.down()
        assert around() != errno.ECONNREFUSED
    finally:
        lab.lose("exit", "road-a", 0)


def test_without_a_kill_switch_a_failure_opens_the_host_and_says_why(lab, tunnel, daemon):
    path = daemon.add_profile("open", tunnel.profile.read_text())
    edit(path, {"protection": {"kill_switch": '"off"'}})
    tunnel.stop_exit()
    try:
        daemon.up("open")
        status = daemon.wait_state("disconnected")
        while status["sentence"] is None:
            status = daemon.status()
        assert "nothing listens there" in status["sentence"]
        assert not status["protection"]["active"]
    finally:
        tunnel.start_exit()
    daemon.up("open")
    daemon.wait_state("connected")
    daemon.up("laptop")  # another one instead
    while daemon.status()["profile"] != "laptop" or daemon.status()["state"] != "connected":
        time.sleep(0.02)
    assert around() == errno.ECONNREFUSED


def test_a_profile_that_always_protects_is_read_again_on_demand(lab, tunnel, daemon):
    path = daemon.add_profile("always", tunnel.profile.read_text())
    edit(path, {"protection": {"kill_switch": '"always"'}})
    daemon.up("always")
    daemon.wait_state("connected")
    daemon.down()
    assert around() == errno.ECONNREFUSED
    assert daemon.status()["protection"] == {
        "kill_switch": "always", "active": True, "verified": True, "inbound": True,
    }  # fmt: skip
    # as after a boot: the kernel knows nothing, the file does
    assert daemon.stop() == 0
    lab.run(CLIENT, ["nft", "flush", "ruleset"])
    environment = {"STATE_DIRECTORY": str(daemon.state_directory)}
    lab.run(CLIENT, [sys.executable, "-m", "halftunnel_vpn.daemon.lockdown"], env=environment)
    assert around() == errno.ECONNREFUSED
    daemon.start()
    assert around() == errno.ECONNREFUSED
    edit(path, {"protection": {"kill_switch": '"off"'}})
    daemon.command("POST", "/v1/reload")
    assert around() != errno.ECONNREFUSED


def htvpn(lab, daemon, *words):
    """What a command says, and its exit code."""
    command = [sys.executable, "-m", "halftunnel_vpn.cli", *words, "--socket", daemon.socket]
    environment = {"STATE_DIRECTORY": str(daemon.state_directory)}
    done = lab.run(CLIENT, command, env=environment, check=False)
    return done.stdout + done.stderr, done.returncode


def test_a_kill_switch_is_lifted_for_good_but_not_from_a_tunnel(lab, tunnel, daemon, snapshot):
    before = snapshot()
    edit(
        daemon.add_profile("always", tunnel.profile.read_text()), {"protection": {"kill_switch": '"always"'}}
    )
    daemon.up("always")
    daemon.wait_state("connected")
    up = snapshot()
    said = "htvpn: a tunnel is wanted up: run `htvpn down` first, then lift what remains\n"
    assert htvpn(lab, daemon, "repair", "--lift") == (said, 1)
    assert snapshot() == up
    for is_running in (True, False):
        daemon.down()
        if not is_running:
            daemon.kill()
        assert around() == errno.ECONNREFUSED
        assert htvpn(lab, daemon, "repair", "--lift") == ("restored: the kill switch\n", 0)
        assert snapshot() == before
        if is_running:
            assert not daemon.status()["protection"]["active"]
            assert daemon.stop() == 0
        daemon.start()
        assert snapshot() == before, "the next start brings nothing back"
        daemon.up("always")
        daemon.wait_state("connected")
    daemon.down()
    htvpn(lab, daemon, "repair", "--lift")


def test_two_daemons_and_two_tunnels(lab, daemon, tunnel):
    first, first_socket = daemon.process, daemon.socket
    daemon.socket = first_socket + "2"
    try:
        with pytest.raises(HostError, match=r"daemon \(process \d+\) manages this host, connected or not"):
            daemon.start()
    finally:
        daemon.process, daemon.socket = first, first_socket
    other = lab.directory / "other.toml"
    other.write_text(tunnel.profile.read_text())
    edit(other, {"tun": {"name": '"htvpn1"'}, "protection": {"kill_switch": '"off"'}})

    def refused():
        up = ["env", f"STATE_DIRECTORY={daemon.state_directory}", *tunnel_up(other, lab)]
        done = lab.run(CLIENT, up, check=False)
        assert done.returncode == 1
        assert f"daemon (process {daemon.process.pid}) manages this host, connected or not" in done.stderr

    tunnel.stop_exit()
    try:
        daemon.up()
        daemon.wait_state("blocked")
        refused()
        assert daemon.status()["state"] in ("blocked", "connecting") and around() == errno.ECONNREFUSED
    finally:
        tunnel.start_exit()
    daemon.wait_state("connected")
    refused()
    assert fetch(lab) and around() == errno.ECONNREFUSED


def tunnel_up(profile, lab):
    return [
        sys.executable, "-m", "halftunnel_vpn.cli", "up", str(profile), "--foreground",
        "--socket", str(lab.directory / "other.sock"),
    ]  # fmt: skip


def test_a_name_that_is_taken_and_a_profile_that_cannot_be_read(lab, daemon):
    lab.run(CLIENT, "ip link add htvpn0 type bridge".split())
    try:
        daemon.up()
        status = daemon.wait_state("blocked")
        assert status["sentence"].startswith("The device name htvpn0 is taken: end the program")
        daemon.down()
    finally:
        lab.run(CLIENT, "ip link del htvpn0".split())
    daemon.add_profile("broken", "name = 7\n")
    with pytest.raises(HostError, match=r"broken\.toml has"):
        daemon.up("broken")


def test_a_profile_that_was_spoilt_meanwhile_is_told_on_one_line(lab, tunnel, daemon, eventually):
    daemon.up()
    daemon.wait_state("connected")
    problems = "laptop.toml has 5 problems: [exit] public_key is missing; [client] private_key is missing; "
    try:
        for end, state in ((daemon.kill, "blocked"), (daemon.stop, "disconnected")):
            end()
            daemon.add_profile("laptop", 'name = "laptop"\n[tun]\nmtu = 1\n')
            daemon.start()
            eventually(lambda: problems in (daemon.status()["sentence"] or ""))
            assert daemon.wait_state(state)["sentence"].count("\n") == 0
            daemon.down()
    finally:
        daemon.add_profile("laptop", tunnel.profile.read_text())
    assert around() != errno.ECONNREFUSED


def test_a_disk_that_is_full_and_a_clock_in_1970(lab, tunnel, shared, snapshot):
    before = snapshot()
    place = shared.state_directory
    small = f"mkdir -p {place} && mount -t tmpfs -o size=64k none {place} && touch {place}/host.lock"
    fill = f"head -c 70000 /dev/zero > {place}/full"
    mounted = ("unshare", "--mount", "--propagation", "private", "sh", "-c")
    wrapper = (*mounted, f'{small} && {fill}; exec "$@"', "-")
    shared.start(wrapper=wrapper)
    with pytest.raises(HostError, match=r"cannot be written \(No space left on device\): make room"):
        shared.up()
    assert shared.status()["state"] == "disconnected"
    assert shared.stop() == 0
    assert snapshot() == before

    shared.start(wrapper=("faketime", "1970-01-02 00:00:00"))
    shared.up()
    status = shared.wait_state("blocked")
    assert "clock of this machine" in status["sentence"] or "not valid yet" in status["sentence"]
    shared.down()
    os.kill(shared.status()["pid"], signal.SIGTERM)  # faketime, its parent, hands no signal on
    assert shared.process.wait(60) == 0, shared.output()
    assert snapshot() == before
