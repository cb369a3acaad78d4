"""Labs of the test run, swept before and after; trials that wait a lot run beside each other."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from lab import Lab
from lab.chaos.outcome import Outcome
from lab.chaos.trials import TRIALS, run_trial

AT_ONCE = 3
"""Trials that run beside each other: they wait for time-outs and slow links most of the time."""

SEED = 20260


@pytest.fixture(scope="session", autouse=True)
def no_leftovers(leftovers_swept: None) -> None:
    """A test run that was killed left namespaces behind."""


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


@pytest.fixture(scope="module")
def outcome_of(no_leftovers: None) -> Iterator[Callable[[str], Outcome]]:
    """Every trial has been started when this is first used; it waits for the one it is asked for."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    # The labs are made in threads, where they cannot see to it themselves that SIGTERM ends them in order.
    before = signal.signal(signal.SIGTERM, leave)
    threads = ThreadPoolExecutor(max_workers=AT_ONCE)
    started: dict[str, Future[Outcome]] = {name: threads.submit(run_trial, name, SEED) for name in TRIALS}
    try:
        yield lambda name: started[name].result()
    finally:
        threads.shutdown(wait=True, cancel_futures=True)
        signal.signal(signal.SIGTERM, before)
