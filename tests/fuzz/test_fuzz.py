"""Every parser takes any bytes: the seeds, mutations of them, and what a coverage-guided fuzzer makes up."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from fuzz_targets import TARGETS, load
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"

EXAMPLES = 30
"""Inputs that hypothesis makes for each target."""

SECONDS = 1
"""Seconds of coverage-guided fuzzing for each target."""

PATIENCE = 280.0
"""Seconds that the fuzzers of all targets may take to come to their end."""

_EXECUTIONS = re.compile(r"stat::number_of_executed_units:\s*(\d+)")

BOUNDED = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,  # a hang is what pytest-timeout and the fuzzer look for
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large),
)


def _seeds(target: str) -> list[Path]:
    return sorted((CORPUS / target).iterdir())


@st.composite
def _mutated(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    """A seed some of whose pieces are replaced, cut out, repeated or taken from another one."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 16)))
        other = draw(st.sampled_from(seeds))
        piece = draw(
            st.one_of(
                st.binary(max_size=8),
                st.just(data[start:end] * 2),
                st.sampled_from((b"", b"\0", b"\xff\xff", b"\xff\xff\xff\xff", b"\x80\0\0\0")),
                st.integers(0, len(other)).map(lambda at, other=other: other[at : at + 64]),
            )
        )
        data = data[:start] + piece + data[end:]
    return data


def test_there_are_seeds_for_every_target_and_no_others() -> None:
    assert sorted(folder.name for folder in CORPUS.iterdir()) == sorted(TARGETS)
    assert all(_seeds(target) for target in TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_seeds(target: str) -> None:
    for seed in _seeds(target):
        load(target)(seed.read_bytes())


@pytest.mark.parametrize("target", TARGETS)
def test_mutations_and_raw_bytes(target: str) -> None:
    function = load(target)
    seeds = tuple(seed.read_bytes() for seed in _seeds(target))

    @BOUNDED
    @given(st.one_of(_mutated(seeds), _mutated(seeds), st.binary(max_size=256)))
    def takes(data: bytes) -> None:
        function(data)

    takes()


@pytest.fixture(scope="module")
def fuzzing(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Future[subprocess.CompletedProcess[str]]]:
    """A fuzzer for each target, as many at a time as there are processors."""
    folder = tmp_path_factory.mktemp("fuzzing")

    def fuzz(target: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "error", str(HERE / "run.py"), target, "--seconds", str(SECONDS)]
        command += ["--corpus", str(folder / "corpus" / target), "--crashes", str(folder / "crashes")]
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=PATIENCE, check=False
        )

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {target: pool.submit(fuzz, target) for target in TARGETS}


@pytest.mark.parametrize("target", TARGETS)
def test_guided_by_coverage(
    target: str, fuzzing: dict[str, Future[subprocess.CompletedProcess[str]]]
) -> None:
    done = fuzzing[target].result(PATIENCE)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-6000:]
    executions = _EXECUTIONS.search(output)
    assert executions and int(executions[1]) > len(_seeds(target)), output[-6000:]
