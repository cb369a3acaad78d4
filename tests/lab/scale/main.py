"""The command line: measure for each number of clients, and print a table."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from halftunnel_vpn import __version__
from halftunnel_vpn.errors import HalfTunnelError
from lab.bench.machine import describe
from lab.scale.measure import Plan, Row, measure
from lab.scale.replicas import ReplicasReport, run_replicas
from lab.scale.shaped import ShapedRow, measure_shaped, shaped_table

CLIENTS: Final = (10, 100, 1000)

REPLICA_CLIENTS: Final = 200

SHAPED_CLIENTS: Final = (1, 10, 50)

_DEFAULTS: Final = Plan()

_LINES: Final[tuple[tuple[str, Callable[[Row], str]], ...]] = (
    ("memory of the exit without clients, MB", lambda row: f"{row.memory_at_rest / 1e6:.0f}"),
    ("memory with all streams, MB", lambda row: f"{row.memory / 1e6:.0f}"),
    ("- added by a client, kB", lambda row: f"{row.memory_per_client / 1e3:.0f}"),
    ("- added by a stream, kB", lambda row: f"{row.memory_per_stream / 1e3:.1f}"),
    ("joins a second", lambda row: f"{row.joins_per_second:.0f}"),
    ("processor time of a join at the exit, ms", lambda row: _ms(row.processor_per_join)),
    ("processor, idle", lambda row: f"{row.processor_idle:.1%}"),
    ("processor, 50 requests a second", lambda row: f"{row.processor_requests:.1%}"),
    ("processor, requests and load", lambda row: f"{row.processor_loaded:.1%}"),
    (
        "load, Mbit/s: carried of offered",
        lambda row: f"{_mbit(row.load_carried)} of {_mbit(row.load_wanted)}",
    ),
    ("request, ms: median, p99", lambda row: f"{_ms(row.request_median)}, {_ms(row.request_p99)}"),
    ("request under load, ms", lambda row: f"{_ms(row.loaded_median)}, {_ms(row.loaded_p99)}"),
    ("failed requests", lambda row: str(row.failed_requests)),
)


def parser() -> argparse.ArgumentParser:
    """Every option."""
    made = argparse.ArgumentParser(
        prog="scripts/scale",
        description="Measure one exit with many clients: real sessions over TLS on loopback, without TUN "
        "devices. One client in ten downloads 1 Mbit/s.",
    )
    made.add_argument(
        "--clients",
        type=int,
        nargs="+",
        default=CLIENTS,
        metavar="N",
        help="numbers of clients (10 100 1000)",
    )
    made.add_argument(
        "--streams", type=int, default=_DEFAULTS.streams, metavar="N", help="of each client (10)"
    )
    made.add_argument(
        "--seconds",
        type=float,
        default=_DEFAULTS.seconds,
        metavar="S",
        help="of each of three measurements (20)",
    )
    made.add_argument(
        "--processes", type=int, default=_DEFAULTS.processes, metavar="N", help="of clients (4)"
    )
    made.add_argument("--package", type=Path, metavar="DIR", help="another build, such as build/compiled")
    made.add_argument(
        "--replicas",
        type=int,
        metavar="N",
        help="instead: so many exits behind HAProxy, each of which is restarted once; 200 clients",
    )
    made.add_argument(
        "--shaping",
        nargs="+",
        choices=("off", "split", "strong"),
        metavar="MODE",
        help="instead: what clients in these modes cost that are active all the time (off, split, strong); "
        "1, 10 and 50 clients",
    )
    made.add_argument("--json", action="store_true", help="print all figures as JSON")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code."""
    options = parser().parse_args(argv)
    plan = Plan(options.streams, options.seconds, options.processes)
    machine = describe()
    rows: list[Row] = []
    shaped: list[ShapedRow] = []
    replicas: ReplicasReport | None = None
    try:
        if options.shaping:
            for number in SHAPED_CLIENTS if options.clients is CLIENTS else options.clients:
                for mode in options.shaping:
                    print(f"{number} clients, {mode} ...", file=sys.stderr, flush=True)
                    row = measure_shaped(number, mode, plan.seconds, plan.processes, options.package)
                    shaped.append(row)
            options.clients = ()
        if options.replicas:
            number = REPLICA_CLIENTS if options.clients is CLIENTS else options.clients[0]
            replicas = run_replicas(options.replicas, number, options.processes)
            options.clients = ()
        for number in options.clients:
            print(f"{number} clients ...", file=sys.stderr, flush=True)
            rows.append(measure(number, plan, options.package))
    except HalfTunnelError as error:
        print(f"scale: {error}", file=sys.stderr)
        return 1
    build = "compiled" if options.package else "as Python"
    about = {key: machine[key] for key in ("date", "machine", "system", "Python", "load when it began")}
    about |= {"version": __version__, "build": build}
    if replicas is not None:
        print(json.dumps(about | replicas.as_dict(), indent=1) if options.json else _replicas(replicas))
    elif options.json:
        print(
            json.dumps(
                about | {"rows": [*(row.as_dict() for row in shaped), *(row.as_dict() for row in rows)]},
                indent=1,
            )
        )
    else:
        found = shaped_table(shaped) if shaped else table(rows)
        print("\n".join(f"- {key}: {value}" for key, value in about.items()) + f"\n\n{found}")
    return 0


def table(rows: Sequence[Row]) -> str:
    """Return the table in Markdown."""
    lines = ["| | " + " | ".join(f"{row.clients:,} clients" for row in rows) + " |"]
    lines.append("| --- |" + " ---: |" * len(rows))
    for title, text in _LINES:
        lines.append(f"| {title} | " + " | ".join(map(text, rows)) + " |")
    return "\n".join(lines)


def _replicas(report: ReplicasReport) -> str:
    """Return the table of the replicas in Markdown."""
    lines = ["| replica | clients | legs | away, s: median | longest | clients of others |"]
    lines.append("| ---: | ---: | ---: | ---: | ---: | ---: |")
    columns = (
        report.clients,
        report.legs,
        report.median_absence,
        report.longest_absence,
        report.others_absence,
    )
    for number, (clients, legs, *absences) in enumerate(zip(*columns, strict=True), 1):
        times = " | ".join(f"{seconds:.1f}" for seconds in absences)
        lines.append(f"| {number} | {clients} | {legs} | {times} |")
    return "\n".join(lines)


def _mbit(rate: float) -> str:
    return f"{rate * 8 / 1e6:.1f}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f}"
