"""Two machines with a real systemd in the lab's client and exit: both are installed as the README says."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from lab import Lab, machine_tree
from lab.machine import Machine
from lab.machine_files import files_of
from lab.target import Target, start_target
from lab.topology import (
    CLIENT,
    DOMAIN_A,
    DOMAIN_B,
    EXIT,
    EXIT_A,
    EXIT_B,
    LAN_RESOLVER,
    TARGET_ADDRESS,
)  # fmt: skip
from lab.tunnel import ALLOWED_EGRESS

SOURCE = Path(__file__).parents[2]
PROGRAM = ("halftunnel_vpn", "configs", "systemd", "scripts", "pyproject.toml", "README.md", "LICENSE")
EXIT_DIRECTORY = "/var/lib/halftunnel-server"
HOSTS = f"127.0.0.1 localhost machine\n{EXIT_A} {DOMAIN_A}\n{EXIT_B} {DOMAIN_B}\n"


@dataclass
class Site:
    """The lab with its two machines, and what was measured on the way."""

    lab: Lab
    target: Target
    client: Machine
    exit: Machine
    profile: str
    before: dict[str, str]
    """The client's files before anything was installed."""
    resolved_before: str = ""
    figures: dict[str, float] = field(default_factory=dict)

    def reach(self, *, check: bool = True, host: str = TARGET_ADDRESS) -> str:
        """What the client gets from the target's web server."""
        patience = 30 if check else 2
        done = self.client.run(f"curl -sS -m {patience} http://{host}/small.txt | wc -c", check=False)
        if check:
            assert done.stdout.strip() == "1000", done.stderr
        return done.stdout.strip()

    def status(self) -> dict:
        return json.loads(self.client.run("htvpn status --json", check=False).stdout)

    def files(self) -> dict[str, str]:
        """The client's files now."""
        return files_of(self.client.root)

    def main_pid(self) -> int:
        return int(self.client.run("systemctl show -P MainPID halftunnel.service").stdout)


def prepare(machine: Machine, wheels: Path) -> None:
    """What a person has done before: the names, the program's source, people."""
    root = machine.root
    (root / "etc/hosts").write_text(HOSTS)
    resolved = root / "etc/systemd/resolved.conf.d/lab.conf"
    resolved.parent.mkdir(parents=True, exist_ok=True)
    resolved.write_text(f"[Resolve]\nDNS={LAN_RESOLVER}\n")
    source = root / "root/source"
    source.mkdir()
    for name in PROGRAM:
        if (SOURCE / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(SOURCE / name, source / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(SOURCE / name, source)
    shutil.copytree(wheels, root / "root/wheels")
    machine.boot()
    machine.run("useradd -m member && useradd -m stranger")


def install(machine: Machine, role: str) -> float:
    """Seconds that scripts/install took."""
    began = time.monotonic()
    machine.run(f"/root/source/scripts/install {role} --wheels /root/wheels", timeout=300)
    return time.monotonic() - began


def set_up_exit(machine: Machine) -> str:
    """As the README says for an exit; the profile of its first client."""
    machine.run(
        f"htvpn server init --dir {EXIT_DIRECTORY} --upstream wss://{DOMAIN_A} --downstream wss://{DOMAIN_B} "
        f"--listen-upstream {EXIT_A}:443 --listen-downstream {EXIT_B}:443 "
        f"--allow-egress {' '.join(ALLOWED_EGRESS)} --dns {TARGET_ADDRESS}"
    )
    machine.run("systemctl enable --now halftunnel-server")
    return machine.run(f"htvpn server add-client laptop --dir {EXIT_DIRECTORY}").stdout


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("machines")
    tree = machine_tree.tree()
    wheels = machine_tree.wheels(SOURCE, machine_tree.python_of(tree))
    with Lab() as lab:
        target = start_target(lab)
        with (
            Machine("client", tree, directory, namespace=lab.namespace(CLIENT)) as client,
            Machine("exit", tree, directory, namespace=lab.namespace(EXIT)) as exit_,
            ThreadPoolExecutor(2) as workers,
        ):
            list(workers.map(lambda machine: prepare(machine, wheels), (client, exit_)))
            before = files_of(client.root)
            client_took, exit_took = workers.map(install, (client, exit_), ("client", "server"))
            profile = set_up_exit(exit_)
            lab.wait_listening(EXIT, 443)
            made = Site(lab, target, client, exit_, profile, before)
            made.figures |= {"install client": client_took, "install server": exit_took}
            yield made
            for name, seconds in made.figures.items():
                print(f"{name}: {seconds:.2f} s")


@pytest.fixture
def client(site: Site) -> Machine:
    return site.client


@pytest.fixture
def exit_machine(site: Site) -> Machine:
    return site.exit
