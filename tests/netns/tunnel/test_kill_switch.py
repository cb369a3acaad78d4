"""`htvpn up --foreground` with a kill switch: what holds while it is up, if it is killed, and after."""

from __future__ import annotations

import errno
import socket
import sys

import pytest
from lab import Lab
from lab.target import start_target
from lab.topology import CLIENT, TARGET_ADDRESS
from lab.tunnel import LabTunnel, edit

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def lab(no_leftovers):
    """One for all tests here: each leaves the client as it was."""
    with Lab() as made:
        yield made


@pytest.fixture(scope="module")
def tunnel(lab):
    start_target(lab)
    made = LabTunnel(lab)
    made.start_exit()
    return made


@pytest.fixture
def kill_switch(tunnel):
    return lambda word: edit(
        tunnel.profile, {"protection": {"kill_switch": f'"{word}"', "allow_lan": "false"}}
    )


def around(device="road-a"):
    """What a program meets that goes around the tunnel, through a device."""
    with socket.socket() as connection:
        connection.settimeout(2)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        return connection.connect_ex((TARGET_ADDRESS, 80))


def test_a_killed_client_leaves_the_host_shut_and_the_next_one_takes_over(lab, tunnel, snapshot, kill_switch):
    before = snapshot()
    kill_switch("on")
    tunnel.start_client()
    tunnel.wait_connected()
    assert around() == errno.ECONNREFUSED
    lab.run(CLIENT, ["curl", "-sSf", "-o", "/dev/null", f"http://{TARGET_ADDRESS}/small.txt"])

    tunnel.client.kill()
    tunnel.client.wait()
    assert around() == errno.ECONNREFUSED
    tunnel.start_client()
    tunnel.wait_connected()
    assert around() == errno.ECONNREFUSED
    assert tunnel.stop_client() == 0, tunnel.client_output()
    assert snapshot() == before
    assert not list(tunnel.state_directory.glob("*journal*"))
    assert not list(tunnel.state_directory.glob("protection*"))


def test_a_client_that_does_not_come_up_keeps_the_host_shut_and_tries_again(
    lab, tunnel, snapshot, kill_switch, eventually
):
    before = snapshot()
    kill_switch("on")
    tunnel.stop_exit()
    try:
        tunnel.start_client()
        eventually(lambda: (tunnel.status() or {}).get("state") == "blocked")
        status = tunnel.status()
        assert "nothing listens there" in status["sentence"]
        assert status["protection"] == {
            "kill_switch": "on",
            "active": True,
            "verified": True,
            "inbound": True,
        }
        assert around() == errno.ECONNREFUSED
        assert tunnel.client.poll() is None
    finally:
        tunnel.start_exit()
    command = [sys.executable, "-m", "halftunnel_vpn.cli", "reconnect", "--socket", str(tunnel.socket)]
    lab.run(CLIENT, command, check=False)  # as the daemon does: it is tried now, if it does not try already
    tunnel.wait_connected()
    assert around() == errno.ECONNREFUSED
    assert tunnel.down() == 0, tunnel.client_output()
    assert snapshot() == before


def test_always_holds_after_down_until_a_repair_lifts_it(lab, tunnel, snapshot, kill_switch):
    before = snapshot()
    kill_switch("always")
    tunnel.start_client()
    tunnel.wait_connected()
    repair = [sys.executable, "-m", "halftunnel_vpn.cli", "repair", "--socket", str(tunnel.socket)]
    environment = {"STATE_DIRECTORY": str(tunnel.state_directory)}
    up = snapshot()
    refused = lab.run(CLIENT, [*repair, "--lift"], env=environment, check=False)
    assert refused.returncode == 1
    assert f"run `htvpn down --socket {tunnel.socket}` first.\n" in refused.stderr
    assert snapshot() == up
    assert tunnel.stop_client() == 0, tunnel.client_output()
    assert around() == errno.ECONNREFUSED
    down = snapshot()
    locks = {
        "nft list ruleset",
        "ip rule",
        "ip -6 rule",
        "ip route show table all",
        "ip -6 route show table all",
        "/proc/sys/net/ipv4/conf/all/src_valid_mark",  # lets replies through a strict filter
    }
    assert {name for name in down if down[name] != before[name]} == locks

    assert "stays" in lab.run(CLIENT, repair, env=environment).stderr
    assert snapshot() == down
    assert "the kill switch" in lab.run(CLIENT, [*repair, "--lift"], env=environment).stdout
    assert snapshot() == before
