"""What processes cost: processor time and resident memory, from proc(5)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")

# Places in /proc/PID/stat after the command's closing parenthesis.
_PARENT: Final = 1
_USER_TIME: Final = 11
_SYSTEM_TIME: Final = 12
_RESIDENT: Final = 21


def tree(roots: Iterable[int]) -> list[int]:
    """The processes and everything below them that lives, roots first."""
    children: dict[int, list[int]] = {}
    for pid, fields in _all():
        children.setdefault(int(fields[_PARENT]), []).append(pid)
    found: list[int] = []
    waiting = list(roots)
    while waiting:
        pid = waiting.pop(0)
        found.append(pid)
        waiting += children.get(pid, [])
    return found


def cpu_seconds(roots: Iterable[int]) -> float:
    """Processor time, user and system, that the trees have used so far (of those that live)."""
    ticks = 0
    for pid in tree(roots):
        fields = _stat(pid)
        if fields is not None:
            ticks += int(fields[_USER_TIME]) + int(fields[_SYSTEM_TIME])
    return ticks / _TICKS


def resident_bytes(roots: Iterable[int]) -> int:
    """Memory of the trees: all resident pages of the largest process, and the private ones of the others.

    So pages that a server shares with its workers count once.
    """
    sizes = {}
    for pid in tree(roots):
        fields = _stat(pid)
        if fields is not None:
            sizes[pid] = int(fields[_RESIDENT]) * _PAGE
    if not sizes:
        return 0
    largest = max(sizes, key=lambda pid: sizes[pid])
    return sizes[largest] + sum(_private_bytes(pid) for pid in sizes if pid != largest)


def _private_bytes(pid: int) -> int:
    with contextlib.suppress(OSError):
        lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024
    return 0


def _stat(pid: int) -> list[str] | None:
    """The fields after the command's name; None when the process is gone."""
    try:
        return (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


def _all() -> Iterator[tuple[int, list[str]]]:
    for path in _PROC.iterdir():
        if path.name.isdigit() and (fields := _stat(int(path.name))) is not None:
            yield int(path.name), fields
