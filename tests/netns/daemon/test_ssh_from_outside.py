"""Somebody is logged in on the host, as on any rented server, while its tunnel comes and goes."""

from __future__ import annotations

import contextlib
import select
import subprocess
from pathlib import Path

import pytest
from lab import Lab
from lab.daemon import LabDaemon
from lab.topology import CLIENT, CLIENT_A, CLIENT_A6, EXIT
from lab.tunnel import SHORT_TIMEOUTS, LabTunnel, edit

pytestmark = pytest.mark.root

OUTSIDE, OUTSIDE6 = "203.0.113.9", "2001:db8:9::9"
PORT = 2222
PATIENCE = 60.0


class Ssh:
    """A real sshd on the client, and logins from far away."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._directory = directory = lab.directory / "ssh"
        directory.mkdir(mode=0o700)
        for name in ("host_key", "login_key"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)]
            subprocess.run(command, check=True)
        keys = directory / "authorized_keys"
        keys.write_text((directory / "login_key.pub").read_text())
        keys.chmod(0o600)
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd confines what is not logged in yet
        options = {
            "HostKey": directory / "host_key",
            "AuthorizedKeysFile": keys,
            "PidFile": "none",
            "UsePAM": "no",
            "StrictModes": "no",
            "UseDNS": "no",
        }
        (directory / "config").write_text("".join(f"{key} {value}\n" for key, value in options.items()))
        lab.start(CLIENT, ["/usr/sbin/sshd", "-D", "-e", "-f", str(directory / "config"), "-p", str(PORT)])
        lab.wait_listening(CLIENT, PORT)

    def command(self, source: str, address: str, *words: str) -> list[str]:
        options = {
            "IdentityFile": self._directory / "login_key",
            "UserKnownHostsFile": self._directory / "known_hosts",
            "StrictHostKeyChecking": "no",
            "BatchMode": "yes",
            "ConnectTimeout": "30",
            "ConnectionAttempts": "1",
        }
        flags = [text for key, value in options.items() for text in ("-o", f"{key}={value}")]
        words = ("ssh", "-F", "none", *flags, "-b", source, "-p", str(PORT), f"root@{address}", *words)
        return self.lab.argv(EXIT, words)

    def login(self, source: str = OUTSIDE, address: str = CLIENT_A) -> None:
        """A new login works."""
        done = subprocess.run(
            self.command(source, address, "echo", "welcome"),
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.stdout == "welcome\n", done.stderr

    def session(self, source: str = OUTSIDE, address: str = CLIENT_A) -> subprocess.Popen[str]:
        """A login that stays open and echoes its input."""
        return subprocess.Popen(
            self.command(source, address, "cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )


def is_alive(session: subprocess.Popen[str], word: str) -> bool:
    """What is typed comes back; a session that is cut gives nothing."""
    assert session.stdin is not None and session.stdout is not None
    session.stdin.write(word + "\n")
    session.stdin.flush()
    readable, _, _ = select.select([session.stdout], [], [], PATIENCE)
    return bool(readable) and session.stdout.readline() == word + "\n"


@pytest.fixture
def outside(lab: Lab) -> Lab:
    for address in (f"{OUTSIDE}/32", f"{OUTSIDE6}/128"):
        lab.run(EXIT, ["ip", "address", "add", address, "dev", "lo"])
    lab.run(EXIT, ["sysctl", "-qw", "net.ipv4.conf.all.arp_announce=2"])  # as a router does
    return lab


def test_a_login_lives_across_up_down_reconnect_and_the_kill_switch(outside: Lab) -> None:
    tunnel = LabTunnel(outside, profile=SHORT_TIMEOUTS)
    tunnel.start_exit()
    daemon = LabDaemon(outside, tunnel.profile)
    daemon.start()
    ssh = Ssh(outside)
    with contextlib.ExitStack() as stack:
        sessions = [stack.enter_context(ssh.session())]
        sessions.append(stack.enter_context(ssh.session(OUTSIDE6, CLIENT_A6)))

        def check(when: str) -> None:
            for session in sessions:
                assert is_alive(session, when), when
            ssh.login()
            ssh.login(OUTSIDE6, CLIENT_A6)

        try:
            check("before")
            daemon.up()
            daemon.wait_state("connected")
            check("up")
            assert daemon.status()["protection"]["inbound"]
            daemon.command("POST", "/v1/reconnect")
            check("reconnecting")
            daemon.wait_state("connected")
            daemon.down()
            check("down")

            edit(daemon.profiles / "laptop.toml", {"protection": {"kill_switch": '"always"'}})
            daemon.up()
            daemon.wait_state("connected")
            check("up with the kill switch")
            tunnel.stop_exit()
            daemon.wait_state("reconnecting", "blocked")
            check("without an exit")
            daemon.down()
            check("down with the kill switch")
        finally:
            for session in sessions:
                assert session.stdin is not None
                session.stdin.close()
            daemon.stop()
