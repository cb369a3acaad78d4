"""A fresh machine with a real systemd, and the Debian packages made here, pure and for one Python."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from lab import Lab, machine_tree
from lab.machine import Machine
from lab.machine_files import files_of
from lab.topology import CLIENT

SOURCE = Path(__file__).parents[2]
PACKAGES = ("halftunnel-vpn", "halftunnel-client", "halftunnel-server")


@dataclass
class Host:
    """A machine that has the packages in /root: REVISION/NAME.deb."""

    lab: Lab
    machine: Machine
    before: dict[str, str]
    """Its files before anything was installed."""

    def files(self) -> dict[str, str]:
        """Its files now."""
        return files_of(self.machine.root)


def build(output: Path, python: str) -> None:
    """Make the packages, as scripts/package does."""
    argv = [sys.executable, str(SOURCE / "scripts/packaging/build.py"), "--pure", "--pythons", python]
    argv += [
        "--compression",
        "none",
        "--output",
        str(output),
        "--cache",
        str(machine_tree.CACHE / "packages"),
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def next_revision(package: Path, output: Path) -> None:
    """Make the package that comes after ``package``: the same files under another version."""
    tree = output / "tree"
    subprocess.run(["dpkg-deb", "-R", str(package), str(tree)], check=True, timeout=60)
    control = tree / "DEBIAN/control"
    control.write_text(control.read_text().replace("0.1.0-1", "0.1.0-2"))
    argv = ["dpkg-deb", "--build", "--root-owner-group", "-Znone", str(tree), str(output)]
    subprocess.run(argv, check=True, timeout=60, capture_output=True)
    subprocess.run(["rm", "-r", str(tree)], check=True, timeout=60)


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    directory = tmp_path_factory.mktemp("packages")
    tree = machine_tree.tree()
    with Lab() as lab, Machine("packaged", tree, directory, namespace=lab.namespace(CLIENT)) as machine:
        before = files_of(machine.root)
        first, second = (machine.root / "root" / revision for revision in ("1", "2"))
        build(first, machine_tree.python_of(tree))
        second.mkdir()
        for package in first.iterdir():
            next_revision(package, second)
        machine.boot()
        yield Host(lab, machine, before)
