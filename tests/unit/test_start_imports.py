"""What a start must not wait for: modules that only some profiles or later requests need."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

FOREGROUND = ("halftunnel_vpn.cli.main", "halftunnel_vpn.cli.up_foreground", "halftunnel_vpn.client.main")

NOT_AT_START = {
    "halftunnel_vpn.audit",
    "halftunnel_vpn.client.diagnosis",
    "halftunnel_vpn.control.requests",
    "halftunnel_vpn.proxy.service",
    "halftunnel_vpn.server",
    "h11",
    "http.client",
    "jeepney",
    "matplotlib",
    "opentelemetry",
    "prometheus_client",
    "pyroute2",
    "segno",
    "sqlite3",
    "statistics",
    "textual",
    "urllib.request",
    "wsgiref",
}
"""Each of them takes milliseconds of a start, and nothing of the first connection needs it."""


@pytest.mark.parametrize(
    "entries", [FOREGROUND, ("halftunnel_vpn.daemon.main",)], ids=["foreground", "daemon"]
)
def test_a_start_imports_only_what_it_needs(entries):
    program = f"import sys, {', '.join(entries)}; print(*sys.modules)"
    # What counts lines imports much itself.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_PROCESS")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, timeout=60, check=True, env=environment,
    )  # fmt: skip
    imported = set(done.stdout.split())
    assert set(entries) <= imported
    assert not imported & NOT_AT_START


@pytest.mark.parametrize(
    "command", [("up", "/nowhere.toml", "--foreground"), ("server", "run", "--dir", "/nowhere")]
)
def test_a_start_does_not_collect_garbage_while_it_imports(command):
    program = f"import gc; from halftunnel_vpn.cli.main import main; main({command!r}); print(gc.isenabled())"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout, done.stderr.count("\n")) == ("False\n", 1)  # it has failed with one sentence
