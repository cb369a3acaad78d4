"""The images, built here, and compose.yaml brought up with real podman."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.containers import Engine

from halftunnel_vpn.errors import HostError


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    made = Engine(tmp_path_factory.mktemp("engine"))
    try:
        made.build()
        yield made
    finally:
        made.close()


RUNC_FAULTS = (
    "can't get final child's PID from pipe",  # moby issue 40835
    # Without a profile the client ends, and its network with it; podman 4 starts the application meanwhile.
    "unable to create new parent process: namespace path",
)
"""What `podman-compose up` may fail with on a busy machine, and what another one mends."""
START_ATTEMPTS = 5


class Site:
    """The services of compose.yaml."""

    SERVED = ("exit", "server-upstream", "server-downstream", "client", "target")
    """Those with a health check."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def compose(self, *words: str) -> str:
        return self.engine.run(["podman-compose", *words], timeout=180).stdout

    def start(self) -> None:
        """Start every service; again when runc loses a process that has just been made."""
        for attempt in range(1, START_ATTEMPTS + 1):
            try:
                self.compose("up", "--detach")
                return
            except HostError as error:
                if not any(fault in str(error) for fault in RUNC_FAULTS) or attempt == START_ATTEMPTS:
                    raise

    def hold_bridges(self) -> None:
        """Give every bridge the link address that it has.

        A bridge without one of its own takes that of a port: it changes when a container comes or goes.
        Who asks the resolver on it would use the old one for up to a minute.
        """
        for bridge in json.loads(self.engine.run(["ip", "-j", "link", "show", "type", "bridge"]).stdout):
            words = ["dev", bridge["ifname"], "address", bridge["address"]]
            self.engine.run(["ip", "link", "set", *words])

    def name(self, service: str) -> str:
        return f"halftunnel_{service}_1"

    def wait_healthy(self, *services: str) -> None:
        self.engine.wait_healthy(*map(self.name, services or self.SERVED))

    def curl(self, *words: str, timeout: int = 10) -> str:
        """What the application gets of the target; empty when it gets nothing."""
        done = self.engine.execute(
            self.name("app"), "curl", "-sS", "--max-time", str(timeout), *words, timeout=timeout + 30
        )
        return done.stdout if done.returncode == 0 else ""

    def address(self, service: str, network: str) -> str:
        networks = self.engine.inspect(self.name(service))["NetworkSettings"]["Networks"]
        return str(networks[f"halftunnel_{network}"]["IPAddress"])

    def bytes_of(self, service: str, network: str) -> tuple[int, int]:
        """Bytes that the device of a container in that network has received and sent."""
        address = self.address(service, network)
        inside = ["nsenter", "--target", str(self.pid(service)), "--net"]
        lines = self.engine.run([*inside, "ip", "-o", "-4", "address"]).stdout.splitlines()
        device = next(line.split()[1] for line in lines if f" {address}/" in line)
        counts = self.engine.run([*inside, "cat", "/proc/net/dev"]).stdout.splitlines()
        words = next(line for line in counts if line.strip().startswith(f"{device}:")).split(":")[1].split()
        return int(words[0]), int(words[8])

    def pid(self, service: str) -> int:
        return int(self.engine.inspect(self.name(service))["State"]["Pid"])

    def status(self, service: str) -> dict[str, str]:
        """The kernel's status of a container's first process, by field."""
        text = Path(f"/proc/{self.pid(service)}/status").read_text()
        return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


@pytest.fixture(scope="module")
def site(engine: Engine) -> Iterator[Site]:
    made = Site(engine)
    try:
        made.start()
        made.hold_bridges()
        made.wait_healthy()
        yield made
    finally:
        for service in ("client", "exit", "admit"):
            print(f"--- {service}\n{engine.podman('logs', '--tail', '60', made.name(service), check=False)}")
        made.compose("down", "--volumes", "--timeout", "1")
