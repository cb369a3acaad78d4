"""The machine that everything ran on, in words."""

from __future__ import annotations

import os
import platform
import re
import sys
from datetime import UTC, datetime
from importlib import util
from pathlib import Path

from lab.bench.peers import first_line
from lab.topology import CLIENT, Lab


def describe() -> dict[str, str]:
    """What a reader must know to compare: hardware, kernel, interpreter, tools."""
    cores = len(os.sched_getaffinity(0))
    loop = "uvloop" if util.find_spec("uvloop") else "asyncio"
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "unknown system")
    return {
        "machine": f"{_processor()}, {cores} cores, {_memory():.0f} GB",
        "system": f"{system}, Linux {platform.release()}",
        "Python": f"{platform.python_version()} ({Path(sys.executable).resolve()}), {loop}",
        "tools": ", ".join(_tools()),
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "load when it began": f"{os.getloadavg()[0]:.2f}",
        "sessions": f"each program has one of its own, autogroups are {_autogroups()}",
    }


def network(lab: Lab) -> dict[str, str]:
    """The settings of the lab's kernel that decide how TCP behaves."""
    found = {}
    for name, key in (("congestion control", "tcp_congestion_control"), ("TCP read buffer", "tcp_rmem")):
        path = f"/proc/sys/net/ipv4/{key}"
        found[name] = " ".join(lab.run(CLIENT, ["cat", path]).stdout.split())
    return found


def _autogroups() -> str:
    """Whether the scheduler weighs session against session, or program against program by `nice`."""
    try:
        enabled = Path("/proc/sys/kernel/sched_autogroup_enabled").read_text().strip() == "1"
    except FileNotFoundError:  # a kernel made without
        enabled = False
    return "on" if enabled else "off"


def _tools() -> list[str]:
    nginx = first_line(["nginx", "-v"]).rpartition("/")[2]
    wrk = " ".join(first_line(["wrk", "-v"]).split()[:2]).replace("debian/", "")
    iperf = " ".join(first_line(["iperf3", "--version"]).split()[:2])
    return [iperf, wrk, f"nginx {nginx}"]


def _processor() -> str:
    found = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def _memory() -> float:
    found = re.search(r"^MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 / 1e9 if found else 0.0
