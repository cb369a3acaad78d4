"""Several exits of one client: on the lab's own roads, or each behind a link with a delay of its own."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from halftunnel_vpn.config.further_exit import with_further_exit
from halftunnel_vpn.errors import HostError
from lab import namespaces
from lab.namespaces import CONFIGURATION
from lab.topology import CLIENT, DOMAIN_A, DOMAIN_B, EXIT, EXIT_A, EXIT_B, TARGET_ADDRESS, Lab
from lab.tunnel import ALLOWED_EGRESS, CONNECT_TIMEOUT, ROAD_PORT, Edits, edit

NAMES: Final = ("one", "two", "three")

WAYS: Final = ("way-0", "way-1", "way-2")
"""The links with a delay: one for each exit, with both of its addresses."""

WAY_ADDRESSES: Final = tuple(f"10.77.{11 + number}.{last}" for number in range(len(WAYS)) for last in (1, 3))

_HTVPN: Final = (sys.executable, "-m", "halftunnel_vpn.cli")


class LabExits:
    """Three exits on the exit's host, and one profile for all of them.

    ``round_trips`` are seconds, by exit; None: all of them are on the lab's two roads, on ports of their own.
    Raises HostError.
    """

    def __init__(
        self, lab: Lab, round_trips: Mapping[str, float] | None = None, *, profile: Edits | None = None
    ) -> None:
        self.lab = lab
        self.profile = lab.directory / "several.toml"
        self.running: dict[str, subprocess.Popen[str]] = {}
        self._ends: dict[str, tuple[str, str, int]] = {}
        """The addresses of both roads of an exit, and their port."""
        domains: dict[str, tuple[str, str]] = {}
        for number, name in enumerate(NAMES):
            if round_trips is None:
                self._ends[name] = EXIT_A, EXIT_B, ROAD_PORT + number
                domains[name] = DOMAIN_A, DOMAIN_B
            else:
                domains[name] = self._add_road(number, name, round_trips[name])
        with ThreadPoolExecutor(len(NAMES)) as threads:
            texts = list(threads.map(lambda name: self._init_exit(name, domains[name]), NAMES))
        whole = texts[0]
        for name, text in zip(NAMES[1:], texts[1:], strict=True):
            whole = with_further_exit(whole, text, source="the lab's profile", name=name)
        self.profile.touch(mode=0o600)
        self.profile.write_text(whole)
        edit(self.profile, {"exit": {"name": f'"{NAMES[0]}"'}, **(profile or {})})

    def start(self, *names: str) -> None:
        """Start these exits, or all of them, and wait until they listen."""
        for name in names or NAMES:
            argv = [*_HTVPN, "server", "run", "--dir", str(self._directory(name))]
            self.running[name] = self.lab.start(EXIT, argv)
        for name in names or NAMES:
            one, other, port = self._ends[name]
            for address in (one, other):
                self._wait_listening(address, port)

    def kill(self, name: str) -> float:
        """SIGKILL; return the monotonic time of its end."""
        self.running[name].kill()
        self.running[name].wait()
        return time.monotonic()

    def swallow(self, name: str, permille: int = 1000) -> float:
        """Lose what an exit and the client send each other, and say nothing; return the monotonic time."""
        for host in (CLIENT, EXIT):
            self.lab.lose(host, WAYS[NAMES.index(name)], permille)
        return time.monotonic()

    def _directory(self, name: str) -> Path:
        return self.lab.directory / f"exit-{name}"

    def _add_road(self, number: int, name: str, round_trip: float) -> tuple[str, str]:
        """Join client and exit by one more link; return the names of the exit's two addresses there."""
        device, base = WAYS[number], f"10.77.{11 + number}"
        argv = [sys.executable, "-m", "lab.bench.relay", self.lab.namespace(CLIENT), self.lab.namespace(EXIT)]
        self.lab.start(CLIENT, [*argv, device, "--delay", f"{round_trip / 2}"])
        for host, addresses in ((CLIENT, (2,)), (EXIT, (1, 3))):
            namespace = self.lab.namespace(host)
            namespaces.wait_for_device(namespace, device, namespaces.COMMAND_TIMEOUT)
            words = [f"address add {base}.{last}/24 dev {device}" for last in addresses]
            for command in (*words, f"link set dev {device} mtu 1500 up"):
                namespaces.command(["ip", "-n", namespace, *command.split()])
        self._ends[name] = f"{base}.1", f"{base}.3", ROAD_PORT
        domains = f"a.{name}.half-tunnel.test", f"b.{name}.half-tunnel.test"
        for host in (CLIENT, EXIT):
            with (CONFIGURATION / self.lab.namespace(host) / "hosts").open("a") as file:
                file.writelines(
                    f"{base}.{last} {domain}\n" for last, domain in zip((1, 3), domains, strict=True)
                )
        return domains

    def _init_exit(self, name: str, domains: tuple[str, str]) -> str:
        """Make an exit and admit the client; return the profile."""
        one, other, port = self._ends[name]
        directory = str(self._directory(name))
        self._htvpn(
            EXIT, "server", "init", "--dir", directory,
            "--upstream", f"wss://{domains[0]}:{port}", "--downstream", f"wss://{domains[1]}:{port}",
            "--listen-upstream", f"{one}:{port}", "--listen-downstream", f"{other}:{port}",
            "--allow-egress", *ALLOWED_EGRESS, "--dns", TARGET_ADDRESS,
        )  # fmt: skip
        return self._htvpn(EXIT, "server", "add-client", "laptop", "--dir", directory)

    def _htvpn(self, host: str, *arguments: str) -> str:
        return self.lab.run(host, [*_HTVPN, *arguments]).stdout

    def _wait_listening(self, address: str, port: int) -> None:
        deadline = time.monotonic() + CONNECT_TIMEOUT
        pattern = re.compile(rf"\s{re.escape(address)}:{port}\s")
        while not pattern.search(self.lab.run(EXIT, ["ss", "-Hltn"]).stdout):
            if time.monotonic() > deadline:
                raise HostError(f"Nothing listens on {address} port {port}.")
            time.sleep(0.02)


def row(exits: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    """One exit of a status, or of what `htvpn exits --json` prints."""
    (found,) = (each for each in exits if each["name"] == name)
    return found
