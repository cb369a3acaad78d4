"""The resources of the machine, or of the container of the exit: memory and open files."""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

CGROUP_FILES = Path("/sys/fs/cgroup")
"""The mount point of cgroups (cgroups(7)). In version 1 the memory controller is a directory in it."""

SOCKETS = Path("/proc/self/net/sockstat")
"""Memory use of the kernel's protocols (proc(5)). For TCP, ``mem`` is in pages, of the whole machine."""

CGROUP_NAMES = Path("/proc/self/cgroup")
"""The cgroups of this process, one line per hierarchy: number, controllers, path."""

_TCP_PAGES = re.compile(r"^TCP:.* mem ([0-9]+)", re.MULTILINE)


def memory() -> int:
    """Return the bytes that this process may use: the machine's memory, or the limit of its cgroups."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *cgroup_bounds()])


def tcp_memory(sockets: Path = SOCKETS) -> int:
    """Return the bytes in the buffers of all TCP sockets of the machine, accurate to 1 MB per processor.

    Return 0 when it is unknown.
    """
    found = _TCP_PAGES.search(_text(sockets))
    return int(found[1]) * os.sysconf("SC_PAGE_SIZE") if found else 0


def open_files() -> int:
    """Return how many files this process may have open after raising its own limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return hard if hard != resource.RLIM_INFINITY else 1 << 30


def cgroup_bounds(names: Path = CGROUP_NAMES, files: Path = CGROUP_FILES) -> Iterator[int]:
    """Yield the memory limits in bytes of the cgroup of this process and of all its parents.

    A container may see the outside path of its cgroup together with the files of its own. So a missing
    directory is skipped, and the top directory is read as well.
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
                if text.isdecimal() and int(text):  # "max" means no limit
                    yield int(text)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
