"""A proxy without privileges on the client, an exit and a target, up once for all tests of this directory."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from lab import Lab
from lab.proxy import NOBODY, LabProxy
from lab.target import Target, start_target
from lab.topology import CLIENT, TARGET
from lab.tunnel import LabTunnel

SOCKS, HTTP, FORWARD = 1080, 8080, 8081


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

    def _run(self, host: str, argv: list[str], timeout: float, check: bool) -> str:
        done = subprocess.run(
            self.lab.argv(host, argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
            env=self.lab.environment({"HOME": str(self.proxy.directory)}),
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
