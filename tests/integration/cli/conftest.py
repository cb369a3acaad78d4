"""`htvpn` as a process of its own, on real files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Htvpn = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def htvpn() -> Htvpn:
    def run(*arguments: str | Path, **options) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "halftunnel_vpn.cli", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)

    return run


@pytest.fixture
def uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting lines is no work of htvpn's, and writes a file of its own."""
    for name in [name for name in os.environ if name.startswith("COVERAGE_PROCESS")]:
        monkeypatch.delenv(name)


@pytest.fixture
def exit_directory(htvpn: Htvpn, tmp_path: Path) -> Path:
    """An exit for a.example.org and b.example.net, fresh from `server init`."""
    directory = tmp_path / "exit"
    made = htvpn(
        "server", "init", "--dir", directory,
        "--upstream", "wss://a.example.org", "--downstream", "wss://b.example.net:8443", "wss://192.0.2.7:8443",
        "--allow-egress", "10.0.0.0/8", "fd00::/8", "--dns", "9.9.9.9",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    return directory
