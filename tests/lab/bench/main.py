"""The command line of the benchmark."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from halftunnel_vpn.errors import HalfTunnelError, HostError, UsageError
from lab import Lab
from lab.bench import chart, machine, measurements, report
from lab.bench.everyday import EVERYDAY
from lab.bench.measurements import Measurement, Scale
from lab.bench.peers import (
    Direct,
    HalfTunnel,
    HalfTunnelCompiled,
    HalfTunnelFourLegs,
    HalfTunnelSplit,
    HalfTunnelSplitThreeLegs,
    HalfTunnelStrong,
    HalfTunnelThreeLegs,
    Peer,
)
from lab.bench.proxies import Hysteria, SingBox, Xray
from lab.bench.results import Contestant, Results
from lab.bench.rivals import (
    OpenConnectDtls,
    OpenConnectTls,
    OpenVpnTcp,
    OpenVpnUdp,
    WireGuardGo,
)
from lab.bench.rows import EVERYDAY_LINE, MANY_FLOWS, ROAD_CONGESTION, ROAD_DELAY, ROAD_RATE
from lab.bench.runner import Runner
from lab.bench.targets import SHAPED

PEERS: Final[tuple[type[Peer], ...]] = (
    Direct,
    HalfTunnel,
    HalfTunnelCompiled,
    HalfTunnelFourLegs,
    HalfTunnelSplit,
    HalfTunnelStrong,
    HalfTunnelThreeLegs,
    HalfTunnelSplitThreeLegs,
    OpenVpnTcp,
    OpenVpnUdp,
    OpenConnectTls,
    OpenConnectDtls,
    WireGuardGo,
    SingBox,
    Xray,
    Hysteria,
)
"""All there are, in the order of the table."""

TOOLS: Final = ("iperf3", "nginx", "ping", "nft")
"""Without these there is nothing to measure; without wrk only the HTTP rows fail."""

ROUNDS: Final = 3
SECONDS: Final = 3.0
QUICK_ROUNDS: Final = 1
QUICK_SECONDS: Final = 1.0

SHAPING_ROWS: Final = ("ping-idle", "http", "connections", "tcp-1-*", "page-0-*")
SHAPING_SECONDS: Final = 30
"""Rows of --shaping, and the length of each run: bulk waits for the clock until it counts as such."""

ROAD_FACTOR: Final = 2.0
"""How much longer than elsewhere a run on the long road is."""

ROAD_WARM_UP: Final = 2.0
QUICK_WARM_UP: Final = 1.0
"""Seconds of a run on the long road that are not counted."""


def parser() -> argparse.ArgumentParser:
    """Every option."""
    made = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure Half-Tunnel and other VPNs side by side, in network namespaces of its own.",
        epilog="Peers: " + ", ".join(peer.id for peer in PEERS) + ". "
        f"Rows: {', '.join(row.name for row in (*measurements.LOCAL, *EVERYDAY, *measurements.ROAD))}. "
        "Of ordinary lines: line-MBIT-MS-QUEUE-LOAD-CONGESTION, as in line-40-20-200-both-cubic.",
    )
    # scripts/bench does it before it starts this program.
    made.add_argument("--install", action="store_true", help="first install the peers' Debian packages")
    made.add_argument("--rounds", type=_at_least_one, metavar="N", help=f"how often (default {ROUNDS})")
    made.add_argument(
        "--seconds", type=_at_least_one, metavar="N", help=f"length of each run (default {SECONDS:.0f})"
    )
    made.add_argument("--rows", nargs="+", default=[], metavar="PATTERN", help="only these, as in 'tcp-*'")
    made.add_argument("--peers", nargs="+", default=[], metavar="PEER", help="only these")
    made.add_argument(
        "--compiled",
        action="store_true",
        help="Half-Tunnel as scripts/compile makes it as well, which is run first",
    )
    made.add_argument(
        "--shaping",
        action="store_true",
        help="Half-Tunnel in the modes off, split and strong, with ratios to off: "
        f"rows {' '.join(SHAPING_ROWS)}, {SHAPING_SECONDS} s each",
    )
    made.add_argument("--lines", action="store_true", help="ordinary lines (line-*) and nothing else")
    made.add_argument("--quick", action="store_true", help="one round of one second, and fewer flows")
    made.add_argument("--json", type=Path, metavar="FILE", help="write every value")
    made.add_argument("--svg", type=Path, metavar="FILE", help="write a chart")
    made.add_argument(
        "--from-json", type=Path, metavar="FILE", help="measure nothing; report what --json wrote earlier"
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run and report; the exit code."""
    options = parser().parse_args(argv)
    if options.shaping:
        options.peers = [HalfTunnel.id, *SHAPED]
        options.rows = options.rows or list(SHAPING_ROWS)
        options.seconds = options.seconds or SHAPING_SECONDS
    try:
        results = _read(options.from_json) if options.from_json else _measure(options)
    except UsageError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except HalfTunnelError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(report.render(results), end="")
    if options.json:
        options.json.write_text(results.as_json())
    if options.svg:
        options.svg.write_text(chart.draw(results))
    return 1 if results.failures else 0


@contextlib.contextmanager
def _bytecode() -> Iterator[None]:
    """Have the programs keep their bytecode, as an installed package does, in a directory of this run."""
    before = {name: os.environ.get(name) for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")}
    with tempfile.TemporaryDirectory() as directory:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = directory
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


def choose(wanted: Sequence[str], *, compiled: bool = False) -> list[type[Peer]]:
    """The peers by name; without names all, the compiled build only if asked for by ``compiled``.

    Raises UsageError for a name nobody has.
    """
    known = {peer.id: peer for peer in PEERS}
    for name in wanted:
        if name not in known:
            raise UsageError(f"no peer is called {name}; there are {', '.join(known)}")
    named = set(wanted) or {peer.id for peer in PEERS if not peer.when_asked}
    if compiled:
        named.add(HalfTunnelCompiled.id)
    return [peer for peer in PEERS if peer.id in named]


def _measure(options: argparse.Namespace) -> Results:
    local, everyday, road, lines = (
        measurements.matching(group, options.rows)
        for group in (measurements.LOCAL, EVERYDAY, measurements.ROAD, measurements.LINE)
    )
    if options.lines:
        local, everyday, road = [], [], []
    elif not options.rows:
        lines = []
    if not local and not everyday and not road and not lines:
        raise UsageError(f"no row matches {' '.join(options.rows)}; --help names all")
    chosen = choose(options.peers, compiled=options.compiled)
    _check_machine()
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    scale = _scale(options)
    results = Results(machine.describe(), _settings(rounds, scale, road, everyday))
    installed = [peer for peer in chosen if is_installed(peer, results, named=peer.id in options.peers)]
    Lab.sweep()
    began = time.monotonic()
    runner = Runner(results, scale, rounds)
    nearby = [peer for peer in installed if not peer.road_only]
    for peer in installed if road or lines else nearby:
        results.peers.append(Contestant(peer.id, peer.title, peer.version(), peer.options))
    try:
        with _bytecode():
            runner.run(nearby, local, road=False)
            runner.run(nearby, everyday, road=True)
            for congestion in ROAD_CONGESTION:
                runner.run(installed, [each for each in road if each.congestion == congestion], road=True)
            for _, group in itertools.groupby(lines, lambda each: (each.congestion, each.line)):
                runner.run(installed, list(group), road=True)
    except KeyboardInterrupt:
        results.fail("all", "the rest", "interrupted")
    results.seconds = time.monotonic() - began
    return results


def _scale(options: argparse.Namespace) -> Scale:
    if options.quick:
        seconds = float(options.seconds or QUICK_SECONDS)
        return Scale(seconds, seconds, QUICK_WARM_UP, MANY_FLOWS[:1])
    seconds = float(options.seconds or SECONDS)
    return Scale(seconds, seconds * ROAD_FACTOR, ROAD_WARM_UP)


def is_installed(peer: type[Peer], results: Results, *, named: bool) -> bool:
    """Return whether a peer can take part; a missing one is a failure unless it may be left out."""
    missing = peer.missing()
    if missing and peer.where_found and not named:
        results.settings[f"left out, {peer.title}"] = f"no {', no '.join(missing)} on PATH"
    elif missing:
        results.fail(peer.title, "all rows", f"{', '.join(missing)} not installed; try --install")
    return not missing


def _settings(
    rounds: int, scale: Scale, road: Sequence[Measurement], everyday: Sequence[Measurement]
) -> dict[str, str]:
    found = {"rounds": f"{rounds}, {scale.seconds:g} s each"}
    if everyday:
        found["line of pages, names, clones and calls"] = (
            f"{EVERYDAY_LINE.delay * 1000:.0f} ms there and back, {EVERYDAY_LINE.rate / 1e6:.0f} Mbit/s each "
            "way, queue of one bandwidth-delay product; all hosts have the machine's congestion control"
        )
    if road:
        found["long road"] = (
            f"{ROAD_DELAY * 1000:.0f} ms there and back, {ROAD_RATE / 1e6:.0f} Mbit/s each way, "
            f"queue of one bandwidth-delay product, {scale.road_seconds:g} s each; "
            "all hosts have the congestion control that the row names"
        )
    return found


def _read(path: Path) -> Results:
    try:
        return Results.from_json(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error


def _check_machine() -> None:
    if os.geteuid() != 0:
        raise HostError("the benchmark makes network namespaces and needs root: sudo ./scripts/bench")
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        raise HostError(f"{', '.join(missing)} not installed: ./scripts/bench installs them")


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number
