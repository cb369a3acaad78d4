"""Attack the traces of a run: `python -m lab.audit.analysis DIRECTORY --runs NAME...`; needs scikit-learn."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np

from halftunnel_vpn import __version__
from halftunnel_vpn.audit.record_log import read_log
from halftunnel_vpn.audit.verdict import judge
from halftunnel_vpn.cli.audit import read
from halftunnel_vpn.errors import HalfTunnelError, UsageError
from lab.audit import report, simulate
from lab.audit.attackers import VOTE, attack
from lab.audit.scores import interval, matching, open_world
from lab.audit.traces import Trace, read_all
from lab.audit.views import ALL, observers, view

LEAST_LOADS: Final = 2
"""Loads of each site without which nothing can be learned and tested."""

THIRD: Final = 1 / 3
"""Share of the training loads for the comparison that shows what three times as many are worth."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Analyse and report; the exit code."""
    parser = argparse.ArgumentParser(prog="lab.audit.analysis", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--runs", nargs="+", required=True)
    parser.add_argument("--simulate", nargs="+", default=[])
    parser.add_argument("--observers", nargs="+", default=[])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    # scikit-learn warns about few loads of each site, for every tree: the intervals say so
    warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
    try:
        result = analyse(options)
    except HalfTunnelError as error:
        print(f"scripts/audit: {error}", file=sys.stderr)
        return 1
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    print(report.render(result), end="")
    return 0


def analyse(options: argparse.Namespace) -> dict[str, Any]:
    """Return every figure of some runs, the first one being what the others are compared with."""
    directory, runs, seed = options.directory, options.runs, options.seed
    chosen = frozenset(options.observers)
    world = json.loads((directory / "world.json").read_text())
    packages = ("numpy", "scipy", "scikit-learn")
    result: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "versions": {
            "halftunnel": __version__,
            "python": platform.python_version(),
            "kernel": platform.release(),
            **{name: version(name) for name in packages},
        },
        "world": world,
        "runs": {},
    }
    baselines: dict[str, list[Trace]] = {}
    for name in runs:
        traces = read_all(directory, name)
        if not traces:
            raise UsageError(f"{directory} has no loads of {name}")
        driver = traces[0].driver
        baseline = baselines.setdefault(driver, traces)
        print(f"{name}: {len(traces)} loads", file=sys.stderr, flush=True)
        result["runs"][name] = attacked(traces, baseline, world["sites"], seed, chosen)
        result["runs"][name]["records"] = scored(directory, name)
        result["runs"][name]["four_bursts"] = four_bursts(directory, name)
    for text in options.simulate:
        plain = next((name for name in runs if name.startswith("off")), None)
        if plain is None:
            raise UsageError("--simulate needs the loads of mode off")
        baseline = read_all(directory, plain)
        up, down = simulate.parse(text)
        traces = [simulate.defend(trace, up, down) for trace in baseline]
        result["runs"][f"simulated {text}"] = attacked(traces, baseline, world["sites"], seed, chosen)
    return result


def attacked(
    traces: list[Trace], baseline: list[Trace], sites: int, seed: int, chosen: frozenset[str]
) -> dict[str, Any]:
    """Return the figures of one run; ``chosen`` are the observers that are looked at, none: all."""
    closed = [trace for trace in traces if trace.site < sites]
    background = [trace for trace in traces if trace.site >= sites]
    labels = np.array([trace.site for trace in closed])
    if len(np.unique(labels)) < 2 or np.bincount(labels)[np.unique(labels)].min() < LEAST_LOADS:
        raise UsageError("there are too few loads: at least two sites, and two loads of each")
    classes = np.unique(labels, return_inverse=True)[1]
    plain = [trace for trace in baseline if trace.site < sites]
    result: dict[str, Any] = {
        "loads": len(closed),
        "chance": 1 / len(np.unique(labels)),
        "page_load_median": statistics.median(trace.seconds for trace in closed),
        "bytes": {
            "mean": float(np.mean([trace.paths_bytes() for trace in closed])),
            "overhead": _overhead(closed, plain),
        },
        "not_quiet": sum(not trace.quiet for trace in closed),
        "observers": {},
    }
    base = statistics.median(trace.seconds for trace in plain)
    result["page_load_change"] = result["page_load_median"] / base - 1
    for observer in observers(closed):
        if chosen and observer not in chosen:
            continue
        views = [view(trace, observer) for trace in closed]
        found = {
            name: interval(probabilities.argmax(axis=1) == classes, classes, seed)
            for name, probabilities in attack(views, classes, seed).items()
        }
        best = max(found, key=lambda name: found[name][0])
        result["observers"][observer] = {"attackers": found, "best": best}
        print(f"  {observer}: {found[best][0]:.1%} ({best})", file=sys.stderr, flush=True)
    views = [view(trace, ALL) for trace in closed]
    fewer = attack(views, classes, seed, share=THIRD)[VOTE]
    result["a_third_of_the_training"] = float((fewer.argmax(axis=1) == classes).mean())
    result["matching"] = matching(closed, seed)
    if background:
        result["open_world"] = _open(closed, background, classes, seed)
    return result


def scored(directory: Path, name: str) -> list[dict[str, Any]]:
    """Return what `htvpn audit` finds in each log that the clients of a run have recorded."""
    found = []
    for path in sorted(directory.glob(f"{name}.records-*.jsonl")):
        with path.open() as lines:
            found.append(judge(read_log(lines)).as_data())
    return found


def four_bursts(directory: Path, name: str) -> dict[str, int]:
    """Return how many handshakes the four-burst model finds on each path, in the captures that were kept."""
    found: dict[str, int] = {}
    for first in sorted(directory.glob(f"{name}.shard*.road-a.pcap")):
        other = first.with_name(first.name.replace("road-a", "road-b"))
        for path in judge(read([str(first), str(other)])).paths:
            found[path.path] = found.get(path.path, 0) + path.four_bursts
    return found


def _overhead(traces: Sequence[Trace], plain: Sequence[Trace]) -> float:
    """Return the bytes beyond those of the same sites without shaping, as a share of these."""
    by_site: dict[int, list[int]] = {}
    for trace in plain:
        by_site.setdefault(trace.site, []).append(trace.paths_bytes())
    expected = sum(float(np.mean(by_site[trace.site])) for trace in traces if trace.site in by_site)
    return sum(trace.paths_bytes() for trace in traces) / expected - 1


def _open(closed: list[Trace], background: list[Trace], classes: np.ndarray, seed: int) -> dict[str, Any]:
    other = int(classes.max()) + 1
    labels = np.concatenate((classes, np.full(len(background), other)))
    found = {}
    for observer in (ALL, "A", "B"):
        views = [view(trace, observer) for trace in (*closed, *background)]
        found[observer] = open_world(attack(views, labels, seed)[VOTE], labels, other)
    return {"sites": len(background), "observers": found}


if __name__ == "__main__":
    sys.exit(main())
