"""Real containers: podman with a store of its own, in a network namespace of its own.

The base image is the tree of ``machine_tree``, so nothing comes from a registry of images. What was built is
kept in the cache of the lab; podman builds again what has changed.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from halftunnel_vpn.errors import HostError
from lab import machine_tree

SOURCE: Final = Path(__file__).parents[2]

STORE: Final = machine_tree.CACHE / "containers"

BASE: Final = "docker.io/library/debian:bookworm-slim"
"""What Dockerfile begins with; here an image of our own has that name."""

BUILD_TIMEOUT: Final = 600.0

MAX_IMAGES: Final = 150
"""Layers in the store, about ten builds; when there are more, it is emptied."""

CERTIFICATES: Final = Path("/etc/ssl/certs/ca-certificates.crt")

CONTAINERS_CONF: Final = """\
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[containers]
default_ulimits = ["nofile={files}:{files}", "nproc=8192:8192"]
[network]
network_backend = "netavark"
network_config_dir = "{store}/networks"
"""

STORAGE_CONF: Final = """\
[storage]
driver = "overlay"
runroot = "/run/halftunnel-lab-containers"
graphroot = "{store}/storage"
"""

Completed = subprocess.CompletedProcess[str]


class Engine:
    """podman in one network namespace. Calls raise HostError when a command fails.

    There is one store, so there is one engine at a time on a machine: the next one waits for `close`.
    """

    def __init__(self, scratch: Path) -> None:
        self.namespace = f"htlab-{os.getpid()}-0-containers"
        self._scratch = scratch
        self._environment = os.environ | {
            "CONTAINERS_CONF": str(scratch / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(scratch / "storage.conf"),
            "DISABLE_HC_SYSTEMD": "true",  # no systemd here that could start health checks
        }
        for directory in ("networks", "storage"):
            (STORE / directory).mkdir(parents=True, exist_ok=True)
        files = min(20000, _hard_limit())
        self._turn = (STORE / "turn").open("w")
        fcntl.flock(self._turn, fcntl.LOCK_EX)
        (scratch / "containers.conf").write_text(CONTAINERS_CONF.format(files=files, store=STORE))
        (scratch / "storage.conf").write_text(STORAGE_CONF.format(store=STORE))
        self._command(["ip", "netns", "add", self.namespace])
        self._command(["ip", "-n", self.namespace, "link", "set", "dev", "lo", "up"])
        self._clear()  # what a run that was killed has left

    def close(self) -> None:
        """Remove all containers and the network namespace; images stay."""
        self._clear()
        self._command(["ip", "netns", "delete", self.namespace], check=False)
        self._turn.close()

    def _clear(self) -> None:
        """Remove all pods, containers, networks and volumes of the store."""
        for words in (
            ["pod", "rm", "--all", "--force", "--time", "0"],
            ["rm", "--all", "--force", "--time", "0", "--volumes"],
            ["network", "prune", "--force"],
            ["volume", "prune", "--force"],
        ):
            self.podman(*words, check=False)

    # --- commands ---------------------------------------------------------------------------------

    def run(self, argv: Sequence[str], *, check: bool = True, timeout: float = 120.0) -> Completed:
        """Run a command beside the containers, to its end."""
        inside = ["nsenter", f"--net=/run/netns/{self.namespace}", *argv]
        return self._command(inside, check=check, timeout=timeout)

    def podman(self, *words: str, check: bool = True, timeout: float = 120.0) -> str:
        """Run podman; return what it prints, both streams."""
        return self.run(["podman", *words], check=check, timeout=timeout).stdout

    def inspect(self, name: str) -> dict[str, Any]:
        """Return what podman knows of a container or an image."""
        found: list[dict[str, Any]] = json.loads(self.podman("inspect", name))
        return found[0]

    def execute(self, container: str, *argv: str, timeout: float = 30.0) -> Completed:
        """Run a command in a container; it may fail."""
        return self.run(["podman", "exec", container, *argv], check=False, timeout=timeout)

    def wait_healthy(self, *containers: str, timeout: float = 60.0) -> None:
        """Return when the health check of each succeeds."""
        deadline = time.monotonic() + timeout
        for name in containers:
            while self.run(["podman", "healthcheck", "run", name], check=False).returncode:
                if time.monotonic() > deadline:
                    logs = self.podman("logs", "--tail", "20", name, check=False)
                    state = self.podman("ps", "--all", check=False)
                    raise HostError(f"{name} is not healthy after {timeout:.0f} s: {logs}\n{state}")
                time.sleep(0.2)

    # --- images -----------------------------------------------------------------------------------

    def build(self, *names: str) -> None:
        """Build images as `make docker` does, without optimisation."""
        if len(self.podman("images", "--all", "--quiet").split()) > MAX_IMAGES:
            self.podman("rmi", "--all", "--force", timeout=BUILD_TIMEOUT)
        self._import(machine_tree.tree())
        pip = self._scratch / "pip.conf"
        pip.write_text(f"[global]\ncert = {CERTIFICATES}\n")
        options = ["--pull=never", "--network=host", "--isolation=chroot", "--build-arg", "COMPILE=--quick"]
        # Packages come over the network of this host, by its authorities.
        for inside, outside in ((CERTIFICATES, CERTIFICATES), (Path("/etc/pip.conf"), pip)):
            options += ["--volume", f"{outside}:{inside}:ro"]
        self._command([str(SOURCE / "scripts/images"), *names, "--", *options], timeout=BUILD_TIMEOUT)

    def _import(self, tree: Path) -> None:
        """Have the tree as the base image, once for each tree."""
        own = f"localhost/lab-base:{tree.name}"
        if self.run(["podman", "image", "exists", own], check=False).returncode:
            packed = self._scratch / "tree.tar"
            self._command(["tar", "-C", str(tree), "-cf", str(packed), "."])
            self.podman("import", str(packed), own, timeout=BUILD_TIMEOUT)
            packed.unlink()
        self.podman("tag", own, BASE)

    def _command(self, argv: Sequence[str], *, check: bool = True, timeout: float = 120.0) -> Completed:
        # A file, not a pipe: daemons that podman starts keep a pipe open.
        with (self._scratch / "output").open("w+", errors="replace") as output:
            try:
                done = subprocess.run(
                    argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=SOURCE,
                    env=self._environment, timeout=timeout, check=False,
                )  # fmt: skip
            except (OSError, subprocess.TimeoutExpired) as error:
                raise HostError(f"`{' '.join(argv)}` did not end: {error}") from error
            output.seek(0)
            text = output.read()
        if check and done.returncode:
            raise HostError(f"`{' '.join(argv)}` ended with {done.returncode}: {text[-3000:]}")
        return subprocess.CompletedProcess(argv, done.returncode, text, "")


def _hard_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]
