"""The daemon in a lab's client, driven through its control socket as `htvpn` does, and ways to end it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from halftunnel_vpn.control import requests
from halftunnel_vpn.errors import HostError
from lab.topology import CLIENT, Lab

START_TIMEOUT: Final = 60.0
"""Seconds within which the daemon serves its socket."""

STATE_TIMEOUT: Final = 90.0
"""Seconds that a state is waited for: a pause of 60 between two attempts may just have begun."""


class LabDaemon:
    """``python -m halftunnel_vpn.daemon`` in the client of ``lab``. Raises HostError with what it printed."""

    def __init__(self, lab: Lab, profile: Path, *, name: str = "laptop") -> None:
        self.lab = lab
        self.name = name
        self.directory = lab.directory / "daemon"
        self.profiles = self.directory / "profiles"
        self.state_directory = self.directory / "state"
        self.socket = str(self.directory / "control.sock")
        self.process: subprocess.Popen[str] | None = None
        self.profiles.mkdir(parents=True)
        self.add_profile(name, profile.read_text())
        self._outputs: list[subprocess.Popen[str]] = []

    def add_profile(self, name: str, text: str) -> Path:
        """Put a profile into the daemon's store."""
        path = self.profiles / f"{name}.toml"
        path.touch(mode=0o600)
        path.write_text(text)
        return path

    def start(self, *arguments: str, wrapper: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        """Start it and wait until its socket is served; one that does not get so far is ended."""
        argv = [*wrapper, sys.executable, "-m", "halftunnel_vpn.daemon"]
        argv += ["--profiles", str(self.profiles), "--socket", self.socket, *arguments]
        environment = {"STATE_DIRECTORY": str(self.state_directory)}
        self.process = process = self.lab.start(CLIENT, argv, env=environment)
        self._outputs.append(process)
        deadline = time.monotonic() + START_TIMEOUT
        while not requests.is_served(self.socket):
            if process.poll() is not None or time.monotonic() > deadline:
                self.lab.stop(process)
                raise HostError(f"The daemon did not start:\n{self.output()}")
            time.sleep(0.01)
        return process

    def command(self, method: str, target: str, content: dict[str, Any] | None = None) -> dict[str, Any]:
        """One request. Raises HostError with the daemon's own sentence, or when it is not there."""
        answer = requests.command(self.socket, method, target, content)
        if answer is None:
            raise HostError(f"The daemon is not there:\n{self.output()}")
        return answer

    def up(self, name: str | None = None) -> None:
        """Ask for a tunnel; :meth:`wait_state` tells when it is there."""
        self.command("POST", "/v1/up", {"profile": name or self.name})

    def down(self) -> None:
        """Disconnect, and wait until the host is put back."""
        self.command("POST", "/v1/down")
        self.wait_state("disconnected")

    def status(self) -> dict[str, Any]:
        """As docs/CONTROL.md says."""
        return self.command("GET", "/v1/status")

    def events(self) -> list[dict[str, Any]]:
        """Every event that the process still knows."""
        return list(self.command("GET", "/v1/events?wait=0")["events"])

    def wait_state(self, *names: str, timeout: float = STATE_TIMEOUT) -> dict[str, Any]:
        """The status, once the state is one of ``names``; HostError when it never is."""
        deadline = time.monotonic() + timeout
        while (status := self.status())["state"] not in names:
            if time.monotonic() > deadline:
                raise HostError(f"Not {' or '.join(names)} but {json.dumps(status)}:\n{self.output()}")
            time.sleep(0.02)
        return status

    def kill(self) -> None:
        """SIGKILL: nothing is put back."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM, as `systemctl stop` does; the exit code."""
        return self._end(signal.SIGTERM)

    def output(self) -> str:
        """What all its processes have printed."""
        return "".join(self.lab.output(process) for process in self._outputs)

    def _end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(START_TIMEOUT)
