"""Coverage-guided fuzzing, one target to a process.

    python tests/fuzz/run.py TARGET --seconds 60 --corpus DIR   fuzz one target; DIR keeps what it learns
    python tests/fuzz/run.py --all --minutes 10                 every target in turn, a line for each
    python tests/fuzz/run.py TARGET --input FILE                run one input, to look at a crash

The exit code is 0 only if nothing crashed. Inputs that crash are kept in the directory of --crashes.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fuzz_targets import TARGETS, load

HERE = Path(__file__).resolve().parent
SEEDS = HERE / "corpus"

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


def fuzz(target: str, seconds: int, corpus: Path, crashes: Path) -> None:
    """Fuzz in this process, which ends with it."""
    import atheris

    with atheris.instrument_imports(include=["halftunnel_vpn"]):
        function = load(target)

    corpus.mkdir(parents=True, exist_ok=True)
    crashes.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={LONG.get(target, MAX_LENGTH)}",
        f"-timeout={UNIT_TIMEOUT}",
        f"-rss_limit_mb={MEMORY_LIMIT}",
        f"-artifact_prefix={crashes}/{target}-",
        "-print_final_stats=1",
        "-verbosity=0",
        "-seed=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus), str(SEEDS / target)], function)
    atheris.Fuzz()


def run_input(target: str, path: Path) -> None:
    """One input, without a fuzzer around it: the traceback is the defect."""
    load(target)(path.read_bytes())
    print(f"{target} takes {path}")


def in_a_process(target: str, seconds: int, corpus: Path, crashes: Path) -> tuple[int, bool, str]:
    """Fuzz in a process of its own: executions, whether it crashed, and its output."""
    command = [sys.executable, "-W", "error", str(HERE / "run.py"), target, "--seconds", str(seconds)]
    command += ["--corpus", str(corpus), "--crashes", str(crashes)]
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=seconds + STARTING, check=False
    )
    output = done.stdout + done.stderr
    found = _EXECUTIONS.search(output)
    return int(found[1]) if found else 0, done.returncode != 0, output


def fuzz_all(minutes: float, corpus: Path, crashes: Path) -> bool:
    """Every target for its share of ``minutes``; returns whether none crashed."""
    workers = os.cpu_count() or 1
    seconds = max(1, round(minutes * 60 * workers / len(TARGETS)))
    all_well = True
    total = crashes_found = 0
    with ThreadPoolExecutor(workers) as pool:
        running = {
            target: pool.submit(in_a_process, target, seconds, corpus / target, crashes) for target in TARGETS
        }
        for target, future in running.items():
            executions, crashed, output = future.result()
            all_well &= not crashed
            total += executions
            crashes_found += crashed
            print(f"{target:24}{executions:>10} executions {int(crashed)} crashes", flush=True)
            if crashed:
                print("\n".join(f"    {line}" for line in output.splitlines()[-60:]), flush=True)
    print(f"{len(TARGETS)} targets, {total} executions in {seconds} s each, {crashes_found} crashes")
    return all_well


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", nargs="?", choices=TARGETS, metavar="TARGET", help="one target")
    parser.add_argument("--all", action="store_true", help="every target in turn")
    parser.add_argument("--seconds", type=int, default=60, help="how long, for one target")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long, for all of them together")
    parser.add_argument("--corpus", type=Path, help="where inputs that reach new code are kept")
    parser.add_argument("--crashes", type=Path, default=Path("fuzz-crashes"), help="where crashing inputs go")
    parser.add_argument("--input", type=Path, help="run this input once")
    asked = parser.parse_args()
    if bool(asked.target) == asked.all:
        parser.error("name one target, or say --all")
    if asked.input is not None:
        run_input(asked.target, asked.input)
        return 0
    with tempfile.TemporaryDirectory() as passing:
        corpus = asked.corpus or Path(passing)
        if asked.all:
            return 0 if fuzz_all(asked.minutes, corpus, asked.crashes) else 1
        fuzz(asked.target, asked.seconds, corpus, asked.crashes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
