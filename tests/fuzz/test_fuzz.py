"""Every parser takes any bytes: the seeds, mutations of them, and what a coverage-guided fuzzer makes up.

The same inputs every time: a verdict must not depend on luck. `scripts/fuzz` explores at random.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from fuzz_targets import TARGETS, load
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from run import FOUND, Exploration, Outcome, in_a_process, keep_found

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"

EXAMPLES = 30
"""Inputs that hypothesis makes for each target."""

EXPLORATION = Exploration(seed=1, seconds=120, runs=1000)
"""Coverage-guided fuzzing of each target: the number of inputs ends it, and time only where each hangs."""

PATIENCE = 280.0
"""Seconds that the fuzzers of all targets may take to come to their end."""

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
def fuzzing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Outcome]]]:
    """A fuzzer for each target, as many at a time as there are processors."""
    folder = tmp_path_factory.mktemp("fuzzing")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {
            target: pool.submit(
                in_a_process, target, EXPLORATION, folder / "corpus" / target, folder / "crashes"
            )
            for target in TARGETS
        }


@pytest.mark.parametrize("target", TARGETS)
def test_guided_by_coverage(target: str, fuzzing: dict[str, Future[Outcome]]) -> None:
    outcome = fuzzing[target].result(PATIENCE)
    assert not outcome.crashed, outcome.output[-6000:]
    assert outcome.executions > len(_seeds(target)), outcome.output[-6000:]


def test_one_seed_explores_the_same_inputs_and_another_seed_other_ones(tmp_path: Path) -> None:
    def learnt(seed: int, name: str) -> set[str]:
        corpus = tmp_path / name
        exploration = Exploration(seed=seed, seconds=120, runs=500)
        assert not in_a_process("wire_packet", exploration, corpus, tmp_path / "crashes").crashed
        return {path.name for path in corpus.iterdir()}  # libFuzzer names an input by its SHA-1

    first = learnt(1, "first")
    assert first and first == learnt(1, "second")
    assert first != learnt(2, "third")


def test_an_input_that_crashes_joins_the_corpus_once(tmp_path: Path) -> None:
    crashes, seeds = tmp_path / "crashes", tmp_path / "seeds"
    crashes.mkdir()
    (crashes / "wire_packet-crash-1").write_bytes(b"broken")
    (crashes / "wire_train-crash-2").write_bytes(b"of another target")
    (kept,) = keep_found("wire_packet", crashes, seeds)
    assert kept.parent == seeds / "wire_packet" and kept.name.startswith(FOUND)
    assert kept.read_bytes() == b"broken"
    assert keep_found("wire_packet", crashes, seeds) == []
