"""`scripts/audit`: pages through the tunnel, what both paths show of them, and who recognises them by it."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from halftunnel_vpn.errors import HalfTunnelError, UsageError
from lab.audit.repeat import MOST_POINTS, compare
from lab.audit.shard import DRIVERS, Plan, Shard
from lab.topology import Lab

MODES: Final = ("off", "split", "strong")

ANALYST: Final = "AUDIT_PYTHON"
"""Environment variable: a Python with numpy, scipy and scikit-learn, which scripts/audit makes."""


def parser() -> argparse.ArgumentParser:
    """Every option."""
    made = argparse.ArgumentParser(
        prog="scripts/audit",
        description="Load seeded web sites through a real tunnel, and measure how well they are recognised.",
        epilog="Loads that are in --dir already are not repeated: an interrupted run goes on where it was.",
    )
    made.add_argument("--mode", nargs="+", choices=MODES, default=["off"], help="of [shaping] (default: off)")
    made.add_argument("--sites", type=_natural, default=25, metavar="N", help="monitored sites (%(default)s)")
    made.add_argument("--loads", type=_natural, default=32, metavar="N", help="of each site (%(default)s)")
    made.add_argument(
        "--browser", type=_natural, default=0, metavar="N", help="also N loads in all by headless Chromium"
    )
    made.add_argument("--no-fetcher", action="store_true", help="loads by Chromium alone")
    made.add_argument("--open", type=_natural, default=0, metavar="N", help="other sites, for an open world")
    made.add_argument("--domains", type=_natural, default=1, metavar="N", help="domains in each direction")
    made.add_argument("--fast", action="store_true", help="with fake-ip names and answer_at_once")
    made.add_argument(
        "--record", action="store_true", help="also have the client record, and score that with htvpn audit"
    )
    made.add_argument(
        "--keep-captures",
        action="store_true",
        help="also keep what was captured in --dir, and look for handshakes of the four-burst model in it",
    )
    made.add_argument(
        "--observers",
        nargs="+",
        default=[],
        metavar="NAME",
        help="only these: all, A, B, A0, A0+B1 (default: all)",
    )
    made.add_argument("--seed", type=int, default=1, help="of sites and order (%(default)s)")
    made.add_argument("--shards", type=_natural, default=2, metavar="N", help="labs at a time (%(default)s)")
    made.add_argument("--dir", type=Path, default=Path("build/audit/run"), help="traces (%(default)s)")
    made.add_argument("--analyse-only", action="store_true", help="load nothing; analyse what --dir has")
    made.add_argument("--collect-only", action="store_true", help="load, and analyse nothing")
    made.add_argument(
        "--simulate",
        nargs="+",
        default=[],
        metavar="UP[/DOWN]",
        help="also clocks over the loads of mode off: BYTES@MS[+HOLD_MS], as in 1400@10+300/1400@1+500",
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="write every figure")
    made.add_argument(
        "--compare",
        nargs=2,
        type=Path,
        metavar="FILE",
        help="measure nothing; compare what --json wrote of two runs with one seed; exit code 1 when what is "
        f"recognised differs by more than {MOST_POINTS:g} points",
    )
    made.add_argument("--shard", type=int, default=None, help=argparse.SUPPRESS)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Collect and analyse; the exit code."""
    options = parser().parse_args(arguments)
    try:
        if options.compare:
            return _compare(*options.compare)
        if options.shard is not None:
            (plan,) = plans(options)
            Shard(plan, options.shard, options.shards).run()
            return 0
        if not options.analyse_only:
            _collect(options)
        return 0 if options.collect_only else _analyse(options)
    except UsageError as error:
        print(f"scripts/audit: {error}", file=sys.stderr)
        return 2
    except HalfTunnelError as error:
        print(f"scripts/audit: {error}", file=sys.stderr)
        return 1


def plans(options: argparse.Namespace) -> list[Plan]:
    """Return the runs that the options ask for: each mode by each driver."""
    found = []
    browser_loads = -(-options.browser // options.sites) if options.sites else 0
    loads = {"fetcher": 0 if options.no_fetcher else options.loads, "browser": browser_loads}
    for driver in DRIVERS:
        for mode in options.mode:
            if loads[driver]:
                open_sites = options.open if driver == "fetcher" else 0
                found.append(
                    Plan(
                        options.dir, mode=mode, driver=driver, seed=options.seed, sites=options.sites,
                        loads=loads[driver], open_sites=open_sites, domains=options.domains,
                        fast=options.fast, record=options.record, keep_captures=options.keep_captures,
                    )
                )  # fmt: skip
    if not found:
        raise UsageError("there is nothing to load: --no-fetcher needs --browser N")
    return found


def _compare(one: Path, other: Path) -> int:
    try:
        table, is_same = compare(*(json.loads(path.read_text()) for path in (one, other)))
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{one} and {other} must be files that --json wrote: {error}") from error
    print(table)
    return 0 if is_same else 1


def _collect(options: argparse.Namespace) -> None:
    if os.geteuid() != 0:
        raise UsageError("network namespaces need root: run this with sudo")
    options.dir.mkdir(parents=True, exist_ok=True)
    _remember_world(options)
    Lab.sweep()
    for plan in plans(options):
        began = time.monotonic()
        shards = [_start_shard(options, plan, number) for number in range(options.shards)]
        try:
            codes = [shard.wait() for shard in shards]
        finally:
            for shard in shards:
                if shard.poll() is None:
                    shard.terminate()
            for shard in shards:
                shard.wait()
        if any(codes):
            logs = " ".join(str(_log(options, plan, number)) for number, code in enumerate(codes) if code)
            raise HalfTunnelError(f"the run {plan.name} failed, see {logs}; the same command goes on with it")
        print(f"{plan.name}: collected in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def _remember_world(options: argparse.Namespace) -> None:
    """Refuse to mix the traces of two worlds in one directory."""
    world = {"seed": options.seed, "sites": options.sites}
    file = options.dir / "world.json"
    if file.exists() and json.loads(file.read_text()) != world:
        raise UsageError(f"{options.dir} holds another world ({file.read_text().strip()}): use another --dir")
    file.write_text(json.dumps(world) + "\n")


def _start_shard(options: argparse.Namespace, plan: Plan, number: int) -> subprocess.Popen[bytes]:
    words = ["--mode", plan.mode, "--sites", plan.sites, "--loads", plan.loads, "--open", plan.open_sites]
    words += ["--domains", plan.domains, "--seed", plan.seed, "--dir", plan.directory, "--shard", number]
    words += [
        "--shards",
        options.shards,
        *(["--fast"] if plan.fast else []),
        *(["--record"] if plan.record else []),
        *(["--keep-captures"] if plan.keep_captures else []),
    ]
    if plan.driver == "browser":
        words += ["--no-fetcher", "--browser", plan.loads * plan.sites]
    with _log(options, plan, number).open("ab") as log:
        argv = [sys.executable, "-m", "lab.audit", *map(str, words)]
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _log(options: argparse.Namespace, plan: Plan, number: int) -> Path:
    return Path(options.dir, f"{plan.name}.shard{number}.log")


def _analyse(options: argparse.Namespace) -> int:
    analyst = os.environ.get(ANALYST, sys.executable)
    argv = [analyst, "-m", "lab.audit.analysis", str(options.dir), "--seed", str(options.seed)]
    argv += ["--runs", *(plan.name for plan in plans(options))]
    if options.simulate:
        argv += ["--simulate", *options.simulate]
    if options.observers:
        argv += ["--observers", *options.observers]
    if options.json:
        argv += ["--json", str(options.json)]
    return subprocess.run(argv, check=False).returncode


def _natural(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return number
