"""`htvpn` as a process of its own, on real files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Htvpn = Callable[..., "subprocess.CompletedProcess[str]"]


def run_htvpn(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `htvpn` in a process of its own."""
    command = [sys.executable, "-m", "halftunnel_vpn.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)


@pytest.fixture
def htvpn() -> Htvpn:
    return run_htvpn


@pytest.fixture
def uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting lines is no work of htvpn's, and writes a file of its own."""
    for name in [name for name in os.environ if name.startswith("COVERAGE_PROCESS")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def new_exit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exit for a.example.org and b.example.net, fresh from `server init`; tests get copies of it."""
    directory = tmp_path_factory.mktemp("new") / "exit"
    made = run_htvpn(
        "server", "init", "--dir", directory,
        "--upstream", "wss://a.example.org", "--downstream", "wss://b.example.net:8443", "wss://192.0.2.7:8443",
        "--allow-egress", "10.0.0.0/8", "fd00::/8", "--dns", "9.9.9.9",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    return directory


@pytest.fixture
def exit_directory(new_exit: Path, tmp_path: Path) -> Path:
    """A copy of the new exit, of which nothing else knows."""
    return Path(shutil.copytree(new_exit, tmp_path / "exit"))
