"""The real tunnel between three hosts, up once for all tests of this directory."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from lab import Lab
from lab.target import Target, start_target
from lab.topology import CLIENT, EXIT, TARGET
from lab.tunnel import Edits, LabTunnel

LOGIN_SHELL = ["prlimit", "--nofile=1024:"]
"""Both programs are started with the soft limit on files that most systems give a person."""

METRICS = {"metrics": {"listen": '"127.0.0.1:9100"'}}


@dataclass
class Rig:
    """The lab, its target and the tunnel: run something on a host and look at what it says."""

    lab: Lab
    target: Target
    tunnel: LabTunnel

    def client(self, command: str, *, timeout: float = 60.0, check: bool = True) -> str:
        """Standard output and error of a shell command on the client."""
        return self._run(CLIENT, command, timeout, check)

    def on_target(self, command: str, *, timeout: float = 60.0, check: bool = True) -> str:
        """The same on the target."""
        return self._run(TARGET, command, timeout, check)

    def on_exit(self, command: str, *, timeout: float = 60.0, check: bool = True) -> str:
        """The same on the exit."""
        return self._run(EXIT, command, timeout, check)

    def dropped(self) -> dict[str, int]:
        """The client's drops, by reason."""
        status = self.tunnel.status()
        assert status is not None
        return status["dropped"]

    def exit_number(self, name: str) -> float:
        """One of the numbers that the exit publishes: ``halftunnel_streams``."""
        page = self.on_exit("curl -sSf http://127.0.0.1:9100/metrics")
        return float(re.search(rf"^{re.escape(name)} (.*)$", page, re.MULTILINE)[1])

    def _run(self, host: str, command: str, timeout: float, check: bool) -> str:
        done = subprocess.run(
            self.lab.argv(host, ["sh", "-c", command]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
            env=self.lab.environment(),
            check=False,
        )
        if check:
            assert done.returncode == 0, f"{command!r} on {host} ended with {done.returncode}: {done.stdout}"
        return done.stdout


@contextlib.contextmanager
def running_rig(*, server: Edits | None = None, profile: Edits | None = None) -> Iterator[Rig]:
    """A tunnel in route-all mode, connected; what both programs have printed is looked at in the end."""
    with Lab() as lab:
        target = start_target(lab)
        tunnel = LabTunnel(lab, server={**METRICS, **(server or {})}, profile=profile)
        tunnel.start_exit(wrapper=LOGIN_SHELL)
        tunnel.start_client(wrapper=LOGIN_SHELL)
        tunnel.wait_connected()
        yield Rig(lab, target, tunnel)
        assert tunnel.stop_client() == 0, tunnel.client_output()
        assert tunnel.stop_exit() == 0, tunnel.exit_output()
        for output in (tunnel.client_output(), tunnel.exit_output()):
            assert "Traceback" not in output


@pytest.fixture(scope="session")
def rig(no_leftovers: None) -> Iterator[Rig]:
    """The tunnel that all tests share, with everything as it comes."""
    with running_rig() as shared:
        yield shared


@pytest.fixture(scope="session")
def new_rig(no_leftovers: None) -> Callable[..., contextlib.AbstractContextManager[Rig]]:
    """Makes a tunnel for a test that needs other settings or breaks things: ``with new_rig(...) as own``."""
    return running_rig
