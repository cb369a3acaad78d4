"""Coverage-guided fuzzing, one target to a process.

    python tests/fuzz/run.py TARGET --seconds 60 --corpus DIR   fuzz one target; DIR keeps what it learns
    python tests/fuzz/run.py --minutes 10                       every target in turn, a line for each
    python tests/fuzz/run.py TARGET --runs 1000 --seed 1        explore the same inputs every time
    python tests/fuzz/run.py TARGET --input FILE                run one input, to look at a crash

Without --seed exploration is random; the seed is printed. The exit code is 0 only if nothing crashed. Inputs
that crash are written to --crashes, and copied to --keep/TARGET as seeds that the tests replay from then on.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from fuzz_targets import TARGETS, load

HERE = Path(__file__).resolve().parent
SEEDS = HERE / "corpus"

FOUND = "found-"
"""Names of the seeds that a fuzzer found begin with this; `make_corpus.py` leaves them alone."""

MAX_LENGTH = 4096
"""Bytes of the longest input that the fuzzer makes up, for most targets."""

LONG = {
    "http_head": 20_000,
    "control_requests": 20_000,
    "daemon_requests": 20_000,
    "config_client": 20_000,
    "config_server": 20_000,
}
"""The same for those whose bounds, or whose seeds, lie beyond."""

UNIT_TIMEOUT = 10
"""Seconds after which one input counts as a hang."""

MEMORY_LIMIT = 1024
"""MiB after which a process counts as one whose memory has no bound."""

STARTING = 120.0
"""Seconds that a process may take beyond its fuzzing."""

_EXECUTIONS = re.compile(r"stat::number_of_executed_units:\s*(\d+)")


class Exploration(NamedTuple):
    """How far and from where a fuzzer explores."""

    seed: int
    """Of libFuzzer's random numbers, at least 1."""
    seconds: int
    """After which it ends."""
    runs: int | None = None
    """Inputs after which it ends, seeds included; None: only time ends it."""


class Outcome(NamedTuple):
    """What became of one target."""

    executions: int
    crashed: bool
    output: str


def fuzz(target: str, exploration: Exploration, corpus: Path, crashes: Path) -> None:
    """Fuzz in this process, which ends with it."""
    import atheris

    with atheris.instrument_imports(include=["halftunnel_vpn"]):
        function = load(target)

    options = [
        f"-max_total_time={exploration.seconds}",
        f"-max_len={LONG.get(target, MAX_LENGTH)}",
        f"-timeout={UNIT_TIMEOUT}",
        f"-rss_limit_mb={MEMORY_LIMIT}",
        f"-artifact_prefix={crashes}/{target}-",
        "-print_final_stats=1",
        "-verbosity=0",
        f"-seed={exploration.seed}",
    ]
    if exploration.runs is not None:
        options.append(f"-runs={exploration.runs}")
    atheris.Setup([sys.argv[0], *options, str(corpus), str(SEEDS / target)], function)
    atheris.Fuzz()


def run_input(target: str, path: Path) -> None:
    """One input, without a fuzzer around it: the traceback is the defect."""
    load(target)(path.read_bytes())
    print(f"{target} takes {path}")


def in_a_process(target: str, exploration: Exploration, corpus: Path, crashes: Path) -> Outcome:
    """Fuzz in a process of its own, because a crash ends the process."""
    corpus.mkdir(parents=True, exist_ok=True)
    crashes.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-W", "error", str(HERE / "run.py"), target, "--here"]
    command += ["--seed", str(exploration.seed), "--seconds", str(exploration.seconds)]
    command += ["--corpus", str(corpus), "--crashes", str(crashes)]
    if exploration.runs is not None:
        command += ["--runs", str(exploration.runs)]
    patience = exploration.seconds + STARTING
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=patience,
            check=False,
            env={**os.environ, "PYTHONHASHSEED": str(exploration.seed)},  # sets are iterated in one order
        )
    except subprocess.TimeoutExpired:
        return Outcome(0, True, f"the fuzzer did not end within {patience:.0f} s")
    output = done.stdout + done.stderr
    found = _EXECUTIONS.search(output)
    return Outcome(int(found[1]) if found else 0, done.returncode != 0, output)


def keep_found(target: str, crashes: Path, seeds: Path) -> list[Path]:
    """Copy the inputs that crashed ``target`` into ``seeds``; return the new files."""
    kept = []
    for crash in sorted(crashes.glob(f"{target}-*")):
        content = crash.read_bytes()
        seed = seeds / target / f"{FOUND}{hashlib.sha256(content).hexdigest()[:16]}"
        if not seed.exists():
            seed.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(crash, seed)
            kept.append(seed)
    return kept


def explore(
    targets: tuple[str, ...], exploration: Exploration, corpus: Path, crashes: Path, keep: Path | None
) -> bool:
    """Fuzz each target, as many at once as there are processors; return whether none crashed."""
    outcomes = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        running = {
            target: pool.submit(in_a_process, target, exploration, corpus / target, crashes)
            for target in targets
        }
        for target, future in running.items():
            outcome = future.result()
            outcomes.append(outcome)
            print(
                f"{target:24}{outcome.executions:>10} executions {int(outcome.crashed)} crashes", flush=True
            )
            if outcome.crashed:
                print("\n".join(f"    {line}" for line in outcome.output.splitlines()[-60:]), flush=True)
                for seed in () if keep is None else keep_found(target, crashes, keep):
                    print(f"    kept as {seed}", flush=True)
    crashes_found = sum(outcome.crashed for outcome in outcomes)
    total = sum(outcome.executions for outcome in outcomes)
    print(
        f"{len(targets)} targets, {total} executions in {exploration.seconds} s each from seed "
        f"{exploration.seed}, {crashes_found} crashes"
    )
    return crashes_found == 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", nargs="?", choices=TARGETS, metavar="TARGET", help="one target")
    parser.add_argument("--all", action="store_true", help="every target, as without TARGET")
    parser.add_argument("--seconds", type=int, default=60, help="how long, for one target")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long, for all of them together")
    parser.add_argument("--runs", type=int, help="end after this many inputs, seeds included")
    parser.add_argument("--seed", type=int, help="of the random numbers, from 1 on (default: any)")
    parser.add_argument("--corpus", type=Path, help="where inputs that reach new code are kept")
    parser.add_argument("--crashes", type=Path, default=Path("fuzz-crashes"), help="where crashing inputs go")
    parser.add_argument("--keep", type=Path, help="the corpus that crashing inputs join")
    parser.add_argument("--input", type=Path, help="run this input once")
    parser.add_argument("--here", action="store_true", help="fuzz in this process, which ends with it")
    asked = parser.parse_args()
    if asked.target and asked.all:
        parser.error("name one target, or none for all of them")
    if asked.input is not None and asked.target is None:
        parser.error("name the target that the input is for")
    if asked.input is not None:
        run_input(asked.target, asked.input)
        return 0
    targets = TARGETS if asked.target is None else (asked.target,)
    seconds = asked.seconds
    if asked.target is None:
        seconds = max(1, round(asked.minutes * 60 * (os.cpu_count() or 1) / len(TARGETS)))
    seed = asked.seed if asked.seed is not None else 1 + secrets.randbelow(2**31)
    exploration = Exploration(seed, seconds, asked.runs)
    if asked.here:
        fuzz(asked.target, exploration, asked.corpus, asked.crashes)
    with tempfile.TemporaryDirectory() as passing:
        corpus = asked.corpus or Path(passing)
        return 0 if explore(targets, exploration, corpus, asked.crashes, asked.keep) else 1


if __name__ == "__main__":
    sys.exit(main())
