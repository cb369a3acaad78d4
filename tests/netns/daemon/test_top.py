"""`htvpn top` in a real terminal, with the real daemon and a real tunnel."""

from __future__ import annotations

import re
import shlex
import sys
import time
from pathlib import Path

import pytest
from lab import Lab
from lab.daemon import LabDaemon
from lab.target import start_target
from lab.terminal import Terminal
from lab.topology import CLIENT, TARGET_ADDRESS
from lab.tunnel import SHORT_TIMEOUTS, LabTunnel

pytestmark = pytest.mark.root

PROGRAM = f"""
import socket, time
open("/proc/self/comm", "w").write("downloader")
while True:
    with socket.create_connection(("{TARGET_ADDRESS}", 80)) as connection:
        connection.sendall(b"GET /small.txt HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
        connection.recv(4096)
        time.sleep(600)
"""


@pytest.fixture
def daemon(lab):
    start_target(lab)
    tunnel = LabTunnel(lab, profile=SHORT_TIMEOUTS)
    tunnel.start_exit()
    made = LabDaemon(lab, tunnel.profile)
    made.start()
    yield made
    made.down()
    assert made.stop() == 0, made.output()


def cpu_seconds(pid: int) -> float:
    times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(times[11]) + int(times[12])) / 100


def test_a_tunnel_with_its_flows_on_a_terminal(lab: Lab, daemon: LabDaemon, tmp_path):
    daemon.up()
    daemon.wait_state("connected")
    lab.start(CLIENT, [sys.executable, "-c", PROGRAM])
    command = [sys.executable, "-m", "halftunnel_vpn.cli", "top", "--socket", daemon.socket]
    terminal = Terminal(tmp_path, shlex.join(command))
    try:
        shown = terminal.until(
            "CONNECTED, laptop, htvpn0", "downloader", f"{TARGET_ADDRESS}:80", "the tunnel is up"
        )
        rows = {words[0]: words for line in shown.splitlines() if (words := line.split())}
        number = int(rows["downloader"][1])
        assert Path(f"/proc/{number}/comm").read_text() == "downloader\n" and rows["downloader"][2] == "1"
        legs = re.findall(r"^(up|down) +\S+ +[\d.]+ ms .* closed$", shown, re.MULTILINE)
        assert sorted(set(legs)) == ["down", "up"], shown
        for width, height in ((100, 30), (60, 20)):
            terminal.resize(width, height)
            lines = terminal.until("-" * width, "CONNECTED", "downloader").splitlines()
            assert len(lines) == height and max(map(len, lines)) <= width
        before, began = cpu_seconds(terminal.process()), time.monotonic()
        time.sleep(2.0)  # what an idle screen costs has no event
        used = (cpu_seconds(terminal.process()) - before) / (time.monotonic() - began)
        print(f"an idle screen uses {used:.1%} of a core")
        assert used < 0.25, f"an idle screen uses {used:.0%} of a core"

        terminal.press("d")
        terminal.until("Disconnect this host?")
        terminal.press("y")
        terminal.until("DISCONNECTED", "no flows")
        terminal.press("u")
        terminal.until("Connect this host")
        terminal.press("y")
        terminal.until("CONNECTED, laptop")
        assert daemon.stop() == 0, daemon.output()
        terminal.until("NO CLIENT: no client answers at")
        daemon.start()
        terminal.until("CONNECTED, laptop")  # what was wanted up comes up again
        terminal.press("q")
        terminal.until("ended with 0")
    finally:
        terminal.close()
