"""What was seen on both paths during one load of a page, and the file that keeps it: a JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class Trace:
    """One load. ``packets`` are (microseconds since the start, signed bytes, leg); upload is positive.

    A leg is a path and the number of its domain: ``A0``, ``B2``. Bytes are payloads of TCP.
    """

    site: int
    load: int
    mode: str
    driver: str
    began: float
    """Unix time."""
    seconds: float
    """How long the page took to load."""
    bytes: int
    """Bytes of the bodies, where the driver knows."""
    quiet: bool = True
    """Whether both paths fell silent after the load."""
    legs: list[str] = field(default_factory=list)
    packets: list[tuple[int, int, int]] = field(default_factory=list)
    """The leg is an index into ``legs``."""

    def paths_bytes(self) -> int:
        """Return the bytes on all paths, in both directions."""
        return sum(abs(size) for _, size, _ in self.packets)


def append(path: Path, trace: Trace) -> None:
    """Add a trace to a file."""
    with path.open("a") as file:
        file.write(json.dumps(asdict(trace), separators=(",", ":")) + "\n")


def read(path: Path) -> Iterator[Trace]:
    """Yield the traces of a file. A last line that was cut off by an interruption is left out."""
    for line in path.read_text().splitlines():
        try:
            data: dict[str, Any] = json.loads(line)
        except ValueError:
            continue
        data["packets"] = [tuple(packet) for packet in data["packets"]]
        yield Trace(**data)


def read_all(directory: Path, name: str) -> list[Trace]:
    """Return the traces of every shard of a run, in the order of load and site."""
    found = [trace for path in sorted(directory.glob(f"{name}.shard*.jsonl")) for trace in read(path)]
    return sorted(found, key=lambda trace: (trace.load, trace.site))
