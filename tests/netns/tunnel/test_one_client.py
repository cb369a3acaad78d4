"""One client manages a host: a second one changes nothing, and the first leaves nothing behind."""

from __future__ import annotations

import errno
import os
import pty
import signal
import socket
import subprocess
import sys

import pytest
from lab import Lab
from lab.topology import CLIENT, TARGET_ADDRESS
from lab.tunnel import LabTunnel, edit

pytestmark = pytest.mark.root

HTVPN = [sys.executable, "-m", "halftunnel_vpn.cli"]


@pytest.fixture(scope="module")
def lab(no_leftovers):
    with Lab() as made:
        yield made


@pytest.fixture(scope="module")
def tunnel(lab):
    made = LabTunnel(lab, profile={"protection": {"kill_switch": '"on"', "allow_lan": "false"}})
    made.start_exit()
    return made


def around():
    """What a program meets that goes around the tunnel."""
    with socket.socket() as connection:
        connection.settimeout(2)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"road-a")
        return connection.connect_ex((TARGET_ADDRESS, 80))


def htvpn(lab, tunnel, *words, state=None):
    """The exit code of a command, and what it said."""
    state = state or tunnel.state_directory
    done = lab.run(CLIENT, [*HTVPN, *words], env={"STATE_DIRECTORY": str(state)}, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_second_client_beside_one_that_connects_changes_nothing(lab, tunnel, snapshot, eventually):
    before = snapshot()
    other, other_socket = lab.directory / "other.toml", str(lab.directory / "other.sock")
    other.touch(mode=0o600)
    other.write_text(tunnel.profile.read_text())
    edit(other, {"tun": {"name": '"htvpn1"'}, "protection": {"kill_switch": '"off"'}})
    tunnel.exit.send_signal(signal.SIGSTOP)  # it takes connections, and says nothing
    try:
        tunnel.start_client()
        eventually(lambda: around() == errno.ECONNREFUSED)
        shut = snapshot()
        sentence = (
            f"htvpn: Another client, `htvpn up --foreground` (process {tunnel.client.pid}), manages this "
            f"host: run `htvpn down --socket {tunnel.socket}` first.\n"
        )
        up = ["up", str(other), "--foreground", "--socket", other_socket]
        # The table is the network namespace's, so a state directory of one's own changes nothing.
        for state in (tunnel.state_directory, lab.directory / "other-state"):
            assert htvpn(lab, tunnel, *up, state=state) == (1, sentence)
        assert htvpn(lab, tunnel, "repair", "--lift", "--socket", other_socket) == (1, sentence)
        assert htvpn(lab, tunnel, "status", "--socket", other_socket) == (3, "state       disconnected\n")
        assert tunnel.client.poll() is None and tunnel.status()["state"] == "connecting"
        assert snapshot() == shut and around() == errno.ECONNREFUSED
    finally:
        tunnel.exit.send_signal(signal.SIGCONT)
        tunnel.stop_client()
    assert snapshot() == before


@pytest.mark.parametrize("end", ["terminal", signal.SIGQUIT])
def test_a_terminal_that_closes_and_quit_end_a_client_cleanly(lab, tunnel, snapshot, end):
    before = snapshot()
    master, terminal = pty.openpty()
    command = ["up", str(tunnel.profile), "--foreground", "--socket", str(tunnel.socket)]
    wrapper = ["env", "--default-signal=HUP,QUIT", "setsid", "--ctty"]
    tunnel.client = None
    with subprocess.Popen(
        [*wrapper, *lab.argv(CLIENT, [*HTVPN, *command])],
        stdin=terminal, stdout=terminal, stderr=terminal,
        env=lab.environment({"STATE_DIRECTORY": str(tunnel.state_directory)}),
    ) as client:  # fmt: skip
        os.close(terminal)
        try:
            tunnel.wait_connected()
            if end == "terminal":
                os.close(master)  # the kernel sends SIGHUP to the session, and writing fails from now on
                master = -1
            else:
                client.send_signal(end)
            assert client.wait(60) in ((0, 1) if end == "terminal" else (0,))
        finally:
            client.kill()
            if master >= 0:
                os.close(master)
    assert snapshot() == before
    assert not list(tunnel.state_directory.glob("*journal*"))
    assert not list(tunnel.state_directory.glob("protection*"))


def test_status_points_to_the_repair_of_what_a_killed_client_left(lab, tunnel, snapshot):
    before = snapshot()
    tunnel.start_client()
    tunnel.wait_connected()
    tunnel.client.kill()
    tunnel.client.wait()
    status = ["status", "--socket", str(tunnel.socket)]
    code, said = htvpn(lab, tunnel, *status)
    assert code == 3
    assert "the tunnel htvpn0 did not end cleanly; run `htvpn repair` as root\n" in said
    assert "a kill switch is in place; run `htvpn up`, or `htvpn repair --lift` as root" in said
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *HTVPN, "status"]
    unprivileged = lab.run(CLIENT, nobody, env={"STATE_DIRECTORY": str(tunnel.state_directory)}, check=False)
    assert "routing rules of a tunnel or a kill switch are in place" in unprivileged.stdout
    assert htvpn(lab, tunnel, "repair", "--lift", "--socket", str(tunnel.socket))[0] == 0
    assert htvpn(lab, tunnel, *status) == (3, "state       disconnected\n")
    assert snapshot() == before
