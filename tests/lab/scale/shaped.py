"""What one exit costs with so many clients on clocks: all of them active all the time."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from halftunnel_vpn.audit import measures
from halftunnel_vpn.audit.observation import Observation
from halftunnel_vpn.audit.record_log import read_log
from lab.bench.usage import cpu_seconds
from lab.scale.place import Place
from lab.tunnel import edit

WARM_UP: Final = 2.0
"""Seconds of activity before the measurement: the ramp of a clock's start is over by then."""


@dataclass(frozen=True, slots=True)
class ShapedRow:
    """The figures for one number of clients. Shares are of one processor, times in seconds."""

    clients: int
    mode: str
    processor_exit: float
    processor_clients: float
    records_per_second: float
    """Downstream, of one client."""
    spread: float
    """Between the tenth and the ninetieth part of how late the exit's records come; 0 without a clock."""
    auc: float
    """How well that distinguishes padding from data; 0.5 where it is not known."""

    def as_dict(self) -> dict[str, float | str]:
        """Return plain data."""
        return dataclasses.asdict(self)


def measure_shaped(
    clients: int, mode: str, seconds: float, processes: int, package: Path | None = None
) -> ShapedRow:
    """Measure a new exit with so many active clients. Raises HostError."""
    with tempfile.TemporaryDirectory(prefix="htscale-") as name, Place(Path(name), package) as place:
        directory = place.make_exit("exit")
        profiles = place.make_clients(directory, clients)
        for profile in profiles:
            edit(profile, {"shaping": {"mode": f'"{mode}"'}})
        port = place.start_destination()
        exit_pid = place.start_exit(directory).pid
        drivers = place.start_drivers(port, profiles, processes)
        drivers.do("join")
        # Recording comes second: it costs the client's processor time.
        drivers.begin("speak", seconds=WARM_UP + 2 * seconds, rest=WARM_UP + seconds, directory=name)
        time.sleep(WARM_UP)
        before = cpu_seconds([exit_pid]), cpu_seconds(drivers.pids)
        began = time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - began
        after = cpu_seconds([exit_pid]), cpu_seconds(drivers.pids)
        logs = [Path(answer["file"]) for answer in drivers.answers()]
        exit_share, clients_share = ((after[end] - before[end]) / took for end in (0, 1))
        rates, spreads, areas = zip(*map(_records, logs), strict=True)
        drivers.do("leave")
        return ShapedRow(
            clients=clients,
            mode=mode,
            processor_exit=exit_share,
            processor_clients=clients_share,
            records_per_second=statistics.mean(rates),
            spread=statistics.mean(spreads),
            auc=statistics.mean(areas),
        )


def _records(log: Path) -> tuple[float, float, float]:
    """Return the records a second that came down, and the spread and area of their lateness."""
    with log.open() as lines:
        observation: Observation = read_log(lines)
    down = observation.sent("B")
    length = down[-1].at - down[0].at if len(down) > 1 else 0.0
    timed = measures.arrival_lateness(down)
    late = sorted(record.late or 0.0 for record in timed)
    found = measures.lateness(timed)
    spread = late[len(late) * 9 // 10] - late[len(late) // 10] if late else 0.0
    return (len(down) - 1) / length if length else 0.0, spread, found.area if found is not None else 0.5


def shaped_table(rows: Sequence[ShapedRow]) -> str:
    """Return the table in Markdown."""
    lines = [
        "| clients | mode | processor of the exit | of one client | records down, a second and client "
        "| spread of lateness, ms | AUC |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        each = row.processor_clients / row.clients
        lines.append(
            f"| {row.clients} | {row.mode} | {row.processor_exit:.1%} | {each:.1%} "
            f"| {row.records_per_second:.0f} | {row.spread * 1e3:.1f} | {row.auc:.2f} |"
        )
    return "\n".join(lines)
