"""What the machine, or the container that the exit runs in, has for it: memory and open files."""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

CGROUP_FILES = Path("/sys/fs/cgroup")
"""Where cgroups are mounted (cgroups(7)); with version 1 the memory controller is a directory there."""

SOCKETS = Path("/proc/self/net/sockstat")
"""What the kernel's protocols use (proc(5)); for TCP, ``mem`` is in pages and of the whole machine."""

CGROUP_NAMES = Path("/proc/self/cgroup")
"""In which cgroup this process is, a line for each hierarchy: number, controllers, path."""

_TCP_PAGES = re.compile(r"^TCP:.* mem ([0-9]+)", re.MULTILINE)


def memory() -> int:
    """Bytes that this process may use: those of the machine, or what the cgroups around it allow."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *cgroup_bounds()])


def tcp_memory(sockets: Path = SOCKETS) -> int:
    """Bytes in the buffers of all TCP sockets of the machine, ours among them, to a megabyte a processor.

    0 when that cannot be told.
    """
    found = _TCP_PAGES.search(_text(sockets))
    return int(found[1]) * os.sysconf("SC_PAGE_SIZE") if found else 0


def open_files() -> int:
    """Files that this process may have open once it has raised its own limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return hard if hard != resource.RLIM_INFINITY else 1 << 30


def cgroup_bounds(names: Path = CGROUP_NAMES, files: Path = CGROUP_FILES) -> Iterator[int]:
    """Bounds of memory, in bytes, of the cgroup of this process and of those around it.

    A container may see the path that its cgroup has outside, and the files of its own: what is not there does
    not count, and the directory above all is looked at as well.
    """
    for line in _text(names).splitlines():
        _, controllers, path = line.split(":", 2)
        bounds: tuple[str, ...]
        if controllers == "":
            top, bounds = files, ("memory.max", "memory.high")
        elif "memory" in controllers.split(","):
            top, bounds = files / "memory", ("memory.limit_in_bytes",)
        else:
            continue
        inside = PurePosixPath(path.lstrip("/"))
        for place in (inside, *inside.parents):
            for name in bounds:
                text = _text(top / place / name).strip()
                if text.isdecimal() and int(text):  # "max" is none
                    yield int(text)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
