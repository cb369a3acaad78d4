"""A host that is short of something, or whose programs hang: one sentence each, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from halftunnel_vpn.host.resolver import resolvconf_program

WITHOUT_DESCRIPTORS = """
import os, resource
from halftunnel_vpn.errors import HostError
from halftunnel_vpn.host.kernel import nft
from halftunnel_vpn.host.resolver import resolvconf_program
from halftunnel_vpn.host.kernel.netlink import with_kernel
with_kernel(lambda kernel: kernel.link("lo"))  # everything that is imported late is there
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, hard))
for question in (nft.listing, lambda: with_kernel(lambda kernel: kernel.link("lo"))):
    try:
        print(question())
    except HostError as error:
        print(error)
print(resolvconf_program.remove("htvpn0"))
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory whose programs are found first."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return tmp_path


def put(program: Path, text: str) -> None:
    program.write_text(text)
    program.chmod(0o755)


def test_without_descriptors_there_are_sentences(programs: Path) -> None:
    for name in ("nft", "resolvconf"):
        put(programs / name, "#!/bin/sh\n")
    said = subprocess.run(
        [sys.executable, "-c", WITHOUT_DESCRIPTORS], capture_output=True, text=True, check=True, timeout=60
    )
    assert said.stdout.splitlines() == [
        "nft cannot be run now (Too many open files).",
        "The kernel cannot be asked about the network now (Too many open files).",
        "resolvconf cannot be run now (Too many open files).",
    ]


def test_a_resolvconf_that_hangs_is_a_sentence(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(programs / "resolvconf", "#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(resolvconf_program, "PROGRAM_TIMEOUT", 0.2)
    for problem in (resolvconf_program.add("htvpn0", ("10.72.84.1",)), resolvconf_program.remove("htvpn0")):
        assert problem is not None and problem.startswith("resolvconf did not end within ")


def test_a_resolvconf_that_is_no_program_is_a_sentence(programs: Path) -> None:
    put(programs / "resolvconf", "\0")
    assert resolvconf_program.remove("htvpn0") == "resolvconf cannot be run now (Exec format error)."
