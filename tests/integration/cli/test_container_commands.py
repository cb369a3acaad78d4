"""What a container needs of `htvpn`: an exit that makes itself, and a health check."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from halftunnel_vpn.config.client import parse_client


@pytest.fixture
def exit_environment(free_port) -> dict[str, str]:
    """An exit on loopback, behind a proxy for TLS."""
    return {
        **os.environ,
        "HTVPN_INIT_UPSTREAM": "wss://a.example.org",
        "HTVPN_INIT_DOWNSTREAM": "wss://b.example.net",
        "HTVPN_INIT_LISTEN_UPSTREAM": f"127.0.0.1:{free_port()}",
        "HTVPN_INIT_LISTEN_DOWNSTREAM": f"127.0.0.1:{free_port()}",
        "HTVPN_INIT_BEHIND_PROXY": "true",
    }


@pytest.fixture
def started():
    """Starts `htvpn server run` and returns it when it is ready; ends what was started."""
    running = []

    def start(directory: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "halftunnel_vpn.cli", "server", "run", "--dir", str(directory)]
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        running.append(process)
        assert process.stderr is not None
        seen = []
        for line in process.stderr:
            seen.append(line)
            if "the exit is ready" in line:
                return process
        raise AssertionError("".join(seen))

    yield start
    for process in running:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def test_an_exit_makes_itself_at_its_first_start_and_stays_the_same(
    htvpn, tmp_path, started, exit_environment, free_port
):
    directory = tmp_path / "exit"
    check = ("healthcheck", "--dir", directory)
    assert htvpn(*check).returncode == 1

    process = started(directory, exit_environment)
    key = (directory / "exit.key").read_text()
    healthy = htvpn(*check)
    assert (healthy.returncode, healthy.stdout) == (0, "both listeners answer\n"), healthy.stderr
    process.terminate()
    process.communicate(timeout=60)
    dead = htvpn(*check)
    assert dead.returncode == 1
    assert dead.stderr.startswith("htvpn: the exit does not answer at 127.0.0.1 port "), dead.stderr

    # with metrics those are asked, and an exit that is there is not made again
    environment = exit_environment | {"HTVPN_METRICS_LISTEN": f"127.0.0.1:{free_port()}"}
    started(directory, environment)
    assert (directory / "exit.key").read_text() == key
    healthy = htvpn(*check, env=environment)
    assert (healthy.returncode, healthy.stdout) == (0, "the exit answers\n"), healthy.stderr


def test_the_health_check_speaks_tls_where_the_listener_does(htvpn, tmp_path, started, free_port):
    ports = free_port(), free_port()
    environment = {
        **os.environ,
        "HTVPN_INIT_UPSTREAM": f"wss://127.0.0.1:{ports[0]}",
        "HTVPN_INIT_DOWNSTREAM": f"wss://127.0.0.1:{ports[1]}",
        "HTVPN_INIT_LISTEN_UPSTREAM": f"127.0.0.1:{ports[0]}",
        "HTVPN_INIT_LISTEN_DOWNSTREAM": f"127.0.0.1:{ports[1]}",
    }
    started(tmp_path / "exit", environment)
    healthy = htvpn("healthcheck", "--dir", tmp_path / "exit")
    assert (healthy.returncode, healthy.stdout) == (0, "both listeners answer\n"), healthy.stderr


def test_a_wrong_description_of_a_new_exit_is_one_sentence(htvpn, tmp_path, exit_environment):
    exit_environment["HTVPN_INIT_DOWNSTREAM"] = "b.example.net"
    done = htvpn("server", "run", "--dir", tmp_path / "exit", env=exit_environment)
    assert done.returncode == 1
    assert done.stderr.startswith("htvpn: HTVPN_INIT_*: --downstream b.example.net: must be "), done.stderr
    assert not (tmp_path / "exit").exists()


def test_a_client_is_admitted_once_where_that_is_asked_for(htvpn, exit_directory, tmp_path):
    command = ("server", "add-client", "app", "--dir", exit_directory, "--if-missing", "--output")
    first = htvpn(*command, tmp_path / "app.toml")
    assert first.returncode == 0, first.stderr
    text = (tmp_path / "app.toml").read_text()
    again = htvpn(*command, tmp_path / "app.toml")
    assert (again.returncode, again.stderr) == (
        0,
        "This exit has a client app already; nothing is changed.\n",
    )
    assert (tmp_path / "app.toml").read_text() == text
    assert parse_client(text).name == "app"


def test_the_environment_speaks_to_those_who_admit_clients_as_well(htvpn, exit_directory):
    environment = {**os.environ, "HTVPN_PUBLIC_UPSTREAM_URLS": "wss://c.example.org/elsewhere"}
    done = htvpn("server", "add-client", "app", "--dir", exit_directory, env=environment)
    assert parse_client(done.stdout).upstream.urls == ("wss://c.example.org/elsewhere",)


def test_a_client_that_does_not_run_is_not_connected(htvpn, tmp_path):
    done = htvpn("healthcheck", "--socket", tmp_path / "control.sock")
    assert (done.returncode, done.stdout) == (
        3,
        f"not connected: no client answers at {tmp_path / 'control.sock'}\n",
    )
    environment = {**os.environ, "HTVPN_CONTROL_SOCKET": str(tmp_path / "elsewhere.sock")}
    assert "elsewhere.sock" in htvpn("healthcheck", env=environment).stdout


def test_wrong_variables_keep_a_client_from_connecting(htvpn, tmp_path):
    environment = {**os.environ, "HTVPN_PROFILE_FILE": str(tmp_path / "gone.toml")}
    done = htvpn("up", "--foreground", env=environment)
    assert (done.returncode, done.stderr) == (
        1,
        f"htvpn: there is no file {tmp_path}/gone.toml, which HTVPN_PROFILE_FILE names\n",
    )
