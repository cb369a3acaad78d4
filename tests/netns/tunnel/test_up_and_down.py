"""After a tunnel has gone up and down, cleanly or not, the host is as before."""

from __future__ import annotations

import os
import signal
import socket

import pytest
from lab import Lab
from lab.target import start_target
from lab.topology import CLIENT, DOMAIN_A, DOMAIN_B, TARGET, TARGET_ADDRESS
from lab.tunnel import LASTING_STATE, LabTunnel

from halftunnel_vpn.errors import HostError

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def lab(no_leftovers):
    """One for all tests here: each leaves the client as it was."""
    with Lab() as made:
        yield made


@pytest.fixture(scope="module")
def target(lab):
    return start_target(lab)


@pytest.fixture(scope="module")
def tunnel(lab):
    """A running exit and a client that does not run yet."""
    made = LabTunnel(lab)
    made.start_exit()
    return made


@pytest.fixture
def up(lab, tunnel, target, snapshot):
    """Brings the tunnel up, and makes sure that there is something to be put back, and that traffic flows."""

    def bring_up():
        before = snapshot()
        tunnel.start_client()
        tunnel.wait_connected()
        changed = {name for name, text in snapshot().items() if before.get(name) != text}
        assert changed >= {"ip rule", "ip -6 rule", "ip address", "nft list ruleset", "resolv.conf"}
        url = target.file_url.replace("large.bin", "small.txt")
        lab.run(CLIENT, ["curl", "-sSf", "-o", os.devnull, url])

    return bring_up


@pytest.fixture
def left(tunnel):
    """What the client has left in its directories, besides the files that are to outlive it."""

    def look():
        state = [path for path in tunnel.state_directory.iterdir() if path.name not in LASTING_STATE]
        return [*state, *tunnel.socket.parent.glob(tunnel.socket.name)]

    return look


@pytest.mark.parametrize("number", (signal.SIGINT, signal.SIGTERM))
def test_a_signal_puts_everything_back(tunnel, up, snapshot, left, number):
    before = snapshot()
    up()
    tunnel.client.send_signal(number)
    assert tunnel.client.wait(60) == 0, tunnel.client_output()
    assert snapshot() == before
    assert left() == []
    assert "Traceback" not in tunnel.client_output()


def test_htvpn_down_puts_everything_back(tunnel, up, snapshot, left):
    before = snapshot()
    up()
    assert tunnel.htvpn(CLIENT, "down", "--socket", str(tunnel.socket)) == "disconnected\n"
    assert tunnel.client.wait(60) == 0, tunnel.client_output()
    assert snapshot() == before
    assert left() == []


def test_many_signals_put_everything_back_too(tunnel, up, snapshot, left):
    before = snapshot()
    up()
    for number in (signal.SIGTERM, signal.SIGINT) * 5:
        tunnel.client.send_signal(number)
    assert tunnel.client.wait(60) == 0, tunnel.client_output()
    assert snapshot() == before
    assert left() == []


def test_a_signal_while_it_still_connects(lab, tunnel, snapshot, left, eventually):
    before = snapshot()
    lab.lose("exit", "road-a", 1000)
    try:
        tunnel.start_client()
        eventually(tunnel.socket.exists)
        eventually(lambda: tunnel.status()["state"] == "connecting")
        tunnel.client.terminate()
        assert tunnel.client.wait(60) == 0, tunnel.client_output()
    finally:
        lab.lose("exit", "road-a", 0)
    assert snapshot() == before
    assert left() == []


def test_what_a_killed_client_left_is_put_back_by_the_next_one(tunnel, up, snapshot, left):
    before = snapshot()
    up()
    tunnel.client.kill()
    tunnel.client.wait(60)
    killed = snapshot()
    assert killed["nft list ruleset"] != before["nft list ruleset"]
    assert killed["resolv.conf"] != before["resolv.conf"]

    up_again = tunnel.start_client()
    tunnel.wait_connected()
    assert "restored what an earlier tunnel had left on this host: htvpn0" in tunnel.client_output()
    up_again.terminate()
    assert up_again.wait(60) == 0
    assert snapshot() == before
    assert left() == []


def test_what_a_killed_client_left_is_put_back_even_if_the_exit_is_gone(tunnel, up, snapshot, left):
    before = snapshot()
    up()
    tunnel.client.kill()
    tunnel.client.wait(60)
    assert tunnel.stop_exit() == 0
    try:
        tunnel.start_client()
        with pytest.raises(HostError):
            tunnel.wait_connected()
        assert tunnel.client.wait(60) == 1
        domains = (DOMAIN_A, DOMAIN_B)  # whichever is found out first
        assert any(f"cannot connect to {domain}" in tunnel.client_output() for domain in domains)
        assert snapshot() == before
        assert left() == []
    finally:
        tunnel.start_exit()


def test_a_second_client_is_refused_and_the_first_goes_on(lab, tunnel, up, target):
    up()
    first = tunnel.client
    tunnel.start_client()
    second = tunnel.client
    assert second.wait(60) == 1
    said = lab.output(second)
    assert said.startswith("htvpn: ") and said.count("\n") == 1
    tunnel.client = first
    assert tunnel.status()["state"] == "connected"
    lab.run(CLIENT, ["curl", "-sSf", "-o", os.devnull, target.file_url.replace("large.bin", "small.txt")])
    assert tunnel.stop_client() == 0


def test_open_connections_end_with_a_reset_when_the_tunnel_goes_down(lab, tunnel, up):
    up()
    with lab.inside(TARGET):
        listener = socket.create_server((TARGET_ADDRESS, 0))
    with listener, lab.inside(CLIENT), socket.create_connection(listener.getsockname(), timeout=30) as client:
        target, _ = listener.accept()
        with target:
            target.settimeout(30)
            assert tunnel.stop_client() == 0
            for end in (client, target):
                with pytest.raises(ConnectionResetError):
                    end.recv(1)
