"""`scripts/demo`: a good verdict, and nothing left behind, unless it is to be kept."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from lab import Lab, namespaces

pytestmark = pytest.mark.root

HTVPN = [sys.executable, "-m", "halftunnel_vpn.cli"]


@pytest.fixture(autouse=True)
def nobody_else_sweeps(sweeping):
    with sweeping():
        yield


SCRIPT = Path(__file__).parents[2] / "scripts" / "demo"
ENVIRONMENT = Lab.environment()
ROW = re.compile(r"^(ok|FAILED) +", re.MULTILINE)


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lab.demo", *arguments],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def label(done: subprocess.CompletedProcess[str]) -> str:
    """What the names of everything of that demo begin with."""
    return re.search(r"/(htlab-\d+-\d+)-", done.stdout)[1]


def left_of(name: str) -> list[str]:
    return [
        *(found for found in namespaces.names() if found.startswith(name)),
        *map(str, Path(tempfile.gettempdir()).glob(f"{name}-*")),
        *map(str, namespaces.CONFIGURATION.glob(f"{name}-*")),
    ]


def test_the_demo_comes_to_a_good_verdict_and_leaves_nothing():
    done = demo()
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(ROW.findall(done.stdout)) == {"ok"}
    assert len(ROW.findall(done.stdout)) == 15
    for title in ("100 MB download, IPv4", "100 MB download, IPv6", "100 MB upload, IPv4"):
        row = next(line for line in done.stdout.splitlines() if line.startswith(title))
        up_a, down_b = (int(row.split()[column].replace(",", "")) for column in (-4, -1))
        assert (up_a if "upload" in title else down_b) >= 100_000_000
    assert left_of(label(done)) == []


def test_a_kept_demo_can_be_entered_and_removed():
    done = demo("--keep")
    assert done.returncode == 0, done.stdout + done.stderr
    enter = re.search(r"sudo (ip netns exec \S+) bash", done.stdout)
    status = re.search(r"\S*htvpn status --socket (\S+)", done.stdout)
    fetch = re.search(r"curl -o /dev/null (\S+)", done.stdout)
    assert enter and status and fetch and "scripts/demo --remove" in done.stdout
    try:
        asked = subprocess.run(
            [*HTVPN, "status", "--json", "--socket", status[1]], capture_output=True, timeout=60, check=True
        )
        assert json.loads(asked.stdout)["state"] == "connected"
        curl = [*enter[1].split(), "curl", "-sSf", "--max-time", "60", "-o", "/dev/null", fetch[1]]
        subprocess.run(curl, timeout=90, check=True)
    finally:
        removed = demo("--remove")
    assert re.fullmatch(r"removed \d+ namespaces\n", removed.stdout)
    assert left_of(label(done)) == []


def test_without_root_the_demo_is_one_sentence():
    done = subprocess.run(
        [SCRIPT], capture_output=True, text=True, timeout=60, check=False, user=65534, group=65534, cwd="/"
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "needs root: sudo ./scripts/demo" in done.stderr
