"""A whole tunnel in a lab: an exit, a client, and what each of them says of itself."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from halftunnel_vpn.client.host.address_memory import FILE as ROAD_ADDRESSES
from halftunnel_vpn.client.legs.handshake_clock import FILE as HANDSHAKE_TIMES
from halftunnel_vpn.control import requests
from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.record.lock import LOCK
from lab.topology import (
    CLIENT,
    DOMAIN_A,
    DOMAIN_B,
    EXIT,
    EXIT_A,
    EXIT_B,
    TARGET_ADDRESS,
    Lab,
)

ROAD_PORT: Final = 8443
"""Port of both domains."""

ALLOWED_EGRESS: Final = ("198.51.100.0/24", "2001:db8:100::/64")
"""The target's networks; an exit reaches no such address unless it is told to."""

CONNECT_TIMEOUT: Final = 90.0
"""Seconds from the start of the exit until it listens, and of the client until it is connected."""

_POLL: Final = 0.05
_HTVPN: Final = (sys.executable, "-m", "halftunnel_vpn.cli")

Edits = Mapping[str, Mapping[str, str]]
"""TOML section to key to value, as it stands in a file."""


SHORT_TIMEOUTS: Final[Edits] = {
    "limits": {"handshake_timeout": '"4s"', "connect_timeout": '"2s"', "keepalive": '"1s"'}
}
"""Profile edits for tests that wait until the client has given up on something that does not answer."""

LASTING_STATE: Final = frozenset({LOCK, HANDSHAKE_TIMES, ROAD_ADDRESSES})
"""Files of a client's state directory that outlive every run: a lock, and what the next start uses."""


_MADE: Final[dict[tuple[type, str], tuple[dict[Path, bytes], bytes]]] = {}
"""By kind of tunnel and package: the files of an exit with one client, and the profile of that."""


class LabTunnel:
    """One exit and one client of it in ``lab``, through the command line as a person would use it.

    ``exit_ports`` are where the exit listens, a port for each socket; ``server`` and ``profile`` change
    single keys of the two configuration files; ``package`` is the directory of another build of the package
    to run. Raises HostError when a command fails.
    """

    exit_ports: Sequence[int] = (ROAD_PORT, ROAD_PORT)

    shaping: str = "off"
    """[shaping] mode of every profile: a run of trials sets it for all of them."""

    def __init__(
        self,
        lab: Lab,
        *,
        server: Edits | None = None,
        profile: Edits | None = None,
        package: Path | None = None,
    ) -> None:
        self.lab = lab
        # `python -m` looks into the working directory first, unless it is told not to.
        self._environment = {} if package is None else {"PYTHONPATH": str(package), "PYTHONSAFEPATH": "1"}
        self.directory = lab.directory / "exit"
        self.profile = lab.directory / "client.toml"
        self.socket = lab.directory / "control.sock"
        self.state_directory = lab.directory / "client-state"
        self.state_directory.mkdir()
        self.exit: subprocess.Popen[str] | None = None
        self.client: subprocess.Popen[str] | None = None
        self._make_exit(str(package))
        edit(self.directory / "server.toml", server or {})
        if self.shaping != "off":
            edit(self.profile, {"shaping": {"mode": f'"{self.shaping}"'}})
        edit(self.profile, profile or {})

    def htvpn(self, host: str, *arguments: str, check: bool = True) -> str:
        """Standard output of `htvpn ARGUMENTS` in a host."""
        return self.lab.run(host, [*_HTVPN, *arguments], check=check, env=self._environment).stdout

    def add_client(self, name: str, profile: Path) -> None:
        """Admit a client and write its profile."""
        text = self.htvpn(EXIT, "server", "add-client", name, "--dir", str(self.directory))
        profile.touch(mode=0o600)
        profile.write_text(text)

    def start_exit(self, *arguments: str, wrapper: Sequence[str] = ()) -> subprocess.Popen[str]:
        """Start the exit and wait until both roads are open. ``wrapper`` goes before the command."""
        argv = [*wrapper, *_HTVPN, "server", "run", "--dir", str(self.directory), *arguments]
        self.exit = self.lab.start(EXIT, argv, env=self._environment)
        for port in set(self.exit_ports):
            sockets = self.exit_ports.count(port)
            self.lab.wait_listening(EXIT, port, sockets=sockets, timeout=CONNECT_TIMEOUT)
        return self.exit

    def start_client(self, *arguments: str, wrapper: Sequence[str] = ()) -> subprocess.Popen[str]:
        """Start the client, without waiting."""
        argv = [*wrapper, *_HTVPN, "up", str(self.profile), "--foreground", *arguments]
        argv += ["--socket", str(self.socket)]
        state = {"STATE_DIRECTORY": str(self.state_directory)}
        self.client = self.lab.start(CLIENT, argv, env=self._environment | state)
        return self.client

    def start(self) -> None:
        """Exit and client, connected."""
        self.start_exit()
        self.start_client()
        self.wait_connected()

    def wait_connected(self, *, timeout: float = CONNECT_TIMEOUT) -> float:
        """Return when traffic can flow, with the seconds that took. HostError when it never does."""
        began = time.monotonic()
        while time.monotonic() - began < timeout:
            status = self.status()
            if status is not None and status["state"] == "connected":
                return time.monotonic() - began
            if self.client is not None and self.client.poll() is not None:
                break
            time.sleep(_POLL)
        raise HostError(f"The client did not connect:\n{self.client_output()}")

    def status(self) -> dict[str, Any] | None:
        """What `htvpn status --json` prints, without a process for each look; None when nobody answers."""
        try:
            return requests.read_status(str(self.socket))
        except HostError:
            return None

    def client_output(self) -> str:
        """What the client has printed."""
        return "" if self.client is None else self.lab.output(self.client)

    def exit_output(self) -> str:
        """What the exit has printed."""
        return "" if self.exit is None else self.lab.output(self.exit)

    def stop_client(self) -> int:
        """End the client as SIGTERM does; its exit code."""
        assert self.client is not None
        return self.lab.stop(self.client)

    def down(self) -> int:
        """End the client with `htvpn down`; its exit code."""
        assert self.client is not None
        self.htvpn(CLIENT, "down", "--socket", str(self.socket))
        return self.client.wait(CONNECT_TIMEOUT)

    def stop_exit(self) -> int:
        """End the exit as SIGTERM does; its exit code."""
        assert self.exit is not None
        return self.lab.stop(self.exit)

    def _make_exit(self, package: str) -> None:
        """Make the exit and its client, by commands the first time; later ones of this process are copies."""
        kind = (type(self), package)
        if kind not in _MADE:
            self._init_exit()
            self.add_client("laptop", self.profile)
            files = [path for path in self.directory.rglob("*") if path.is_file()]
            contents = {path.relative_to(self.directory): path.read_bytes() for path in files}
            _MADE[kind] = contents, self.profile.read_bytes()
            return
        contents, profile = _MADE[kind]
        for name, content in contents.items():
            (self.directory / name).parent.mkdir(mode=0o700, exist_ok=True)
            _write(self.directory / name, content)
        _write(self.profile, profile)

    def _init_exit(self) -> None:
        listen_a, listen_b = f"{EXIT_A}:{ROAD_PORT}", f"{EXIT_B}:{ROAD_PORT}"
        self.htvpn(
            EXIT, "server", "init", "--dir", str(self.directory),
            "--upstream", f"wss://{DOMAIN_A}:{ROAD_PORT}",
            "--downstream", f"wss://{DOMAIN_B}:{ROAD_PORT}",
            "--listen-upstream", listen_a, "--listen-downstream", listen_b,
            "--allow-egress", *ALLOWED_EGRESS, "--dns", TARGET_ADDRESS,
        )  # fmt: skip


def _write(path: Path, content: bytes) -> None:
    """Write a new file for its owner alone."""
    path.touch(mode=0o600)
    path.write_bytes(content)


def edit(path: Path, edits: Edits) -> None:
    """Set keys of a TOML file that this project wrote: replace the line, or add it to its section."""
    text = path.read_text()
    for section, values in edits.items():
        header = f"[{section}]\n"
        for key, value in values.items():
            before, found, after = text.partition(header)
            if not found:
                text += f"\n{header}{key} = {value}\n"
                continue
            body, rest = re.match(r"((?:(?!\[)[^\n]*\n)*)(.*)", after, re.DOTALL).groups()  # type: ignore[union-attr]
            line = re.compile(rf"^#? ?{re.escape(key)} = .*\n", re.MULTILINE)
            body = line.sub("", body, count=1)
            text = f"{before}{header}{key} = {value}\n{body}{rest}"
    path.write_text(text)
