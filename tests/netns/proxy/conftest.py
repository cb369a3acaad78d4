"""A proxy without privileges on the client, an exit and a target, up once for all tests of this directory."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from lab import Lab
from lab.proxy import NOBODY, LabProxy, environment, interpreter
from lab.target import Target, start_target
from lab.topology import CLIENT, TARGET
from lab.tunnel import LabTunnel

SOCKS, HTTP, FORWARD = 1080, 8080, 8081

COUNT_QUESTIONS = """
table inet questions {
    chain out {
        type filter hook output priority 0;
        udp dport 53 counter
        tcp dport 53 counter
    }
}
"""
"""Counts what the client asks a resolver by itself."""


@dataclass
class ProxyRig:
    """The lab, its target and the proxy: run something as an ordinary user and look at what it says."""

    lab: Lab
    target: Target
    tunnel: LabTunnel
    proxy: LabProxy

    def client(self, command: str, *, timeout: float = 60.0, check: bool = True) -> str:
        """Standard output and error of a shell command of `nobody` on the client."""
        return self._run(CLIENT, [*NOBODY, "sh", "-c", command], timeout, check)

    def on_target(self, command: str, *, timeout: float = 60.0, check: bool = True) -> str:
        """The same of root on the target."""
        return self._run(TARGET, ["sh", "-c", command], timeout, check)

    def python(self, program: str, *, timeout: float = 60.0) -> str:
        """What a piece of Python of `nobody` prints; it may have as many files as 2,000 connections need."""
        path = self.proxy.directory / "program.py"
        path.write_text(program)
        return self.client(f"ulimit -n 4096 && exec {interpreter()} {path}", timeout=timeout)

    def questions(self) -> list[int]:
        """Packets to port 53 that the client has sent, by UDP and by TCP."""
        listed = self.lab.run(CLIENT, ["nft", "list", "table", "inet", "questions"]).stdout
        return [int(count) for count in re.findall(r"packets (\d+)", listed)]

    def _run(self, host: str, argv: list[str], timeout: float, check: bool) -> str:
        done = subprocess.run(
            self.lab.argv(host, argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
            env=self.lab.environment(environment(self.proxy.directory)),
            cwd="/",
            check=False,
        )
        if check:
            assert done.returncode == 0, f"{argv[-1]!r} ended with {done.returncode}: {done.stdout}"
        return done.stdout


@pytest.fixture(scope="package")
def rig(no_leftovers: None) -> Iterator[ProxyRig]:
    """What both programs have printed is looked at in the end."""
    with Lab() as lab:
        target = start_target(lab)
        lab.run(CLIENT, ["nft", "-f", "-"], input=COUNT_QUESTIONS)
        tunnel = LabTunnel(lab)
        tunnel.start_exit()
        proxy = LabProxy(
            tunnel,
            "--socks", f"127.0.0.1:{SOCKS}", "--socks", str(lab.directory / "nobody" / "socks.sock"),
            "--http", f"127.0.0.1:{HTTP}", "--forward", f"127.0.0.1:{FORWARD}=target.test:80",
            ports=(SOCKS, HTTP, FORWARD),
        )  # fmt: skip
        yield ProxyRig(lab, target, tunnel, proxy)
        assert proxy.stop() == 0, proxy.output()
        assert tunnel.stop_exit() == 0, tunnel.exit_output()
        for output in (proxy.output(), tunnel.exit_output()):
            assert "Traceback" not in output


@pytest.fixture(autouse=True)
def no_questions(rig: ProxyRig) -> Iterator[None]:
    """No program asks a resolver itself, nor does the proxy: every name is resolved at the exit."""
    before = rig.questions()
    yield
    assert rig.questions() == before
