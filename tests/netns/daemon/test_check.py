"""`htvpn check` and `htvpn bugreport` on a host with a real tunnel, with faults made on purpose."""

from __future__ import annotations

import json
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
from lab import Lab
from lab.daemon import LabDaemon
from lab.target import start_target
from lab.topology import CLIENT, EXIT, UPLINK
from lab.tunnel import SHORT_TIMEOUTS, LabTunnel

pytestmark = pytest.mark.root

HTVPN = [sys.executable, "-m", "halftunnel_vpn.cli"]


@pytest.fixture(scope="module")
def lab(no_leftovers):
    with Lab() as made:
        start_target(made)
        yield made


@pytest.fixture(scope="module")
def tunnel(lab):
    made = LabTunnel(
        lab, profile={**SHORT_TIMEOUTS, "protection": {"kill_switch": '"on"', "allow_lan": "false"}}
    )
    made.start_exit()
    return made


@pytest.fixture(scope="module")
def daemon(lab, tunnel):
    made = LabDaemon(lab, tunnel.profile)
    made.start()
    yield made
    made.down()
    made.stop()


@pytest.fixture
def check(lab, daemon, tunnel):
    """Runs `htvpn check`: the exit code, and what it says by subject."""

    def run(*words: str) -> tuple[int, dict[str, str]]:
        done = lab.run(
            CLIENT,
            [*HTVPN, "check", str(tunnel.profile), "--json", *words, "--socket", daemon.socket],
            check=False,
            env={"STATE_DIRECTORY": str(daemon.state_directory)},
        )
        findings = json.loads(done.stdout)
        return done.returncode, {one["subject"]: f"{one['outcome']} {one['text']}" for one in findings}

    return run


def test_without_a_tunnel_every_step_is_made(check):
    code, found = check()
    assert code == 0, found
    assert found["session"].startswith("ok the exit accepts this client")
    assert found["host"].startswith("ok") and found["leftovers"] == "ok none"
    assert sum("WebSocket" in subject for subject in found) == 2


def test_without_a_tun_device_and_with_another_vpn(lab, daemon, tunnel, check):
    lab.run(CLIENT, ["ip", "tuntap", "add", "dev", "tun9", "mode", "tun"])
    lab.run(CLIENT, ["ip", "link", "set", "dev", "tun9", "up"])
    lab.run(CLIENT, ["ip", "route", "add", "128.0.0.0/1", "dev", "tun9"])
    try:
        code, found = check()
    finally:
        lab.run(CLIENT, ["ip", "link", "del", "dev", "tun9"])
    assert code == 0 and found["other VPNs"].startswith("warning tun9")


def test_a_running_tunnel_is_read_back(daemon, check):
    daemon.up()
    daemon.wait_state("connected")
    code, found = check("--speed")
    assert code == 0, found
    assert found["tunnel"].startswith("ok connected") and found["kill switch"].startswith("ok on, read back")
    assert found["upstream"].startswith("ok") and found["downstream"].startswith("ok")
    # The exit of the lab has no way to the Internet, and says so itself.
    assert found["exit"].startswith("warning it has no route to the Internet")
    for way in ("download", "upload"):
        assert float(found[f"speed, {way}"].split()[1]) > 1, found


def test_the_exit_names_its_own_addresses(lab, daemon, check):
    lab.run(EXIT, ["ip", "route", "add", "198.41.0.4/32", "dev", UPLINK])
    try:
        _, found = check()
    finally:
        lab.run(EXIT, ["ip", "route", "del", "198.41.0.4/32", "dev", UPLINK])
    assert found["exit IPv4"].startswith("ok the exit has 198.51.100.1 and is behind NAT")


def test_an_exit_that_is_gone_is_named(daemon, tunnel, check, eventually):
    tunnel.stop_exit()
    try:
        daemon.wait_state("reconnecting", "blocked")
        code, found = check()
    finally:
        tunnel.start_exit()
    assert code == 1 and found["tunnel"].startswith("failed")
    daemon.wait_state("connected")


def test_a_report_holds_no_key_no_path_and_no_name(lab, daemon, tunnel, tmp_path):
    report = tmp_path / "report.tar.gz"
    argv = [*HTVPN, "bugreport", str(tunnel.profile), "--output", str(report), "--socket", daemon.socket]
    lab.run(CLIENT, argv, env={"STATE_DIRECTORY": str(daemon.state_directory)})
    assert report.stat().st_mode & 0o777 == 0o600
    profile = tomllib.loads(Path(tunnel.profile).read_text())
    canaries = [profile["client"]["private_key"], profile["exit"]["public_key"]]
    for way in ("upstream", "downstream"):
        for url in profile[way]["urls"]:
            host, _, path = url.partition("://")[2].partition("/")
            canaries += [host.rpartition(":")[0] or host, path]
    with tarfile.open(report) as archive:
        texts = {
            member.name.rpartition("/")[2]: archive.extractfile(member).read().decode() for member in archive
        }
    assert {
        "check.json",
        "status.json",
        "logs.txt",
        "firewall.txt",
        "rules.txt",
        "versions.txt",
    } <= texts.keys()
    assert "halftunnel" in texts["firewall.txt"] and "connected" in texts["status.json"]
    for canary in canaries:
        if not canary.replace(".", "").isdigit():  # the lab's own addresses are private ones
            assert all(canary not in text for text in texts.values()), canary
