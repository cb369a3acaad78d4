"""`htvpn` itself: quick answers, exit codes, one sentence when something is wrong."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys

import pytest

from halftunnel_vpn import __build__
from halftunnel_vpn.control.control_service import ControlService, Response

QUICK = 4.0
"""Processor time of `htvpn --help` and `htvpn status`, in that of an interpreter with asyncio."""


@pytest.mark.parametrize("arguments", [["--help"], ["status", "--socket", "/nonexistent/control.sock"]])
def test_htvpn_answers_quickly(htvpn, arguments, uncounted):
    bare, spent = [], []
    for _ in range(5):
        begun = processor_time()
        subprocess.run([sys.executable, "-c", "import asyncio"], check=True)
        between = processor_time()
        htvpn(*arguments)
        bare.append(between - begun)
        spent.append(processor_time() - between)
    assert min(spent) < QUICK * min(bare)


def processor_time() -> float:
    """Seconds that ended children have computed: what waits in them is the machine's other work."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("arguments", [["--help"], ["status", "--socket", "/nonexistent/control.sock"]])
def test_nothing_heavy_is_imported_for_it(arguments):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "halftunnel_vpn.cli", *arguments],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    imported = {
        line.rpartition("|")[2].strip()
        for line in done.stderr.splitlines()
        if line.startswith("import time:")
    }
    assert "argparse" in imported
    heavy = {
        "asyncio",
        "cryptography",
        "pyroute2",
        "websockets",
        "prometheus_client",
        "dnslib",
        "h11",
        "tomli",
    }
    assert not imported & heavy


def test_version(htvpn):
    assert htvpn("--version").stdout == f"htvpn {__build__}\n"


def test_nothing_runs(htvpn, tmp_path):
    socket = tmp_path / "control.sock"
    status = htvpn("status", "--socket", socket)
    assert (status.returncode, status.stdout, status.stderr) == (3, "state       disconnected\n", "")
    status = htvpn("status", "--json", "--socket", socket)
    assert (status.returncode, status.stdout) == (3, '{"state": "disconnected"}\n')
    down = htvpn("down", "--socket", socket)
    assert (down.returncode, down.stdout, down.stderr) == (3, "", "htvpn: not connected\n")


async def test_status_and_down_of_something_that_runs(htvpn, tmp_path):
    socket = str(tmp_path / "control.sock")
    stopped = asyncio.Event()

    async def status(_request):
        return Response(200, "application/json", b'{"state": "connected", "profile": "home"}')

    async def stop(_request):
        stopped.set()
        return Response(202, "application/json", b"{}")

    service = ControlService({("GET", "/v1/status"): status, ("POST", "/v1/down"): stop})
    await service.serve_unix(socket)

    shown = await asyncio.to_thread(htvpn, "status", "--socket", socket)
    assert (shown.returncode, shown.stdout) == (0, "state       connected, profile home\n")

    down = asyncio.create_task(asyncio.to_thread(htvpn, "down", "--socket", socket))
    await asyncio.wait_for(stopped.wait(), 30)
    assert not down.done(), "it waits until everything is put back"
    await service.close()
    ended = await down
    assert (ended.returncode, ended.stdout) == (0, "disconnected\n")


def test_a_broken_profile_is_told_whole(htvpn, tmp_path):
    profile = tmp_path / "home.toml"
    profile.write_text('name = "home"\n[tun]\nmtu = 1\n')
    up = htvpn("up", profile, "--foreground")
    assert up.returncode == 1 and "Traceback" not in up.stderr
    assert up.stderr.startswith(f"htvpn: {profile} has 5 problems:\n")
    assert "[tun] mtu = 1: must be a whole number from 1280 to 65535" in up.stderr


def test_a_bad_metrics_address_is_wrong_usage(htvpn, exit_directory):
    for arguments in (["up", "--foreground"], ["server", "run", "--dir", exit_directory]):
        done = htvpn(*arguments, "--metrics", "9100")
        assert done.returncode == 2
        assert "--metrics 9100: must be an address and a port" in done.stderr


@pytest.mark.parametrize("command", ["--help", "--version", "status --socket /nowhere"])
def test_output_that_nobody_reads_is_no_complaint(command):
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as nobody:
        done = subprocess.run(
            [sys.executable, "-m", "halftunnel_vpn.cli", *command.split()],
            stdout=nobody, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.stderr == ""
