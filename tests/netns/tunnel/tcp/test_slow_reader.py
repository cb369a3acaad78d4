"""Readers that stall: everybody else goes on at full speed, memory stays bounded, and nothing is lost."""

from __future__ import annotations

import hashlib
import statistics
import time

import pytest

pytestmark = [pytest.mark.root, pytest.mark.alone]

STALL = 5.0
"""Seconds."""

LARGE = 200_000_000
"""Bytes of a flow that stalls: far more than all the buffers on its way can take."""

SHARE = 0.5
"""Of the usual rate that is left beside stalled flows at the least; the rest is the machine's doing."""

SAMPLE = 50_000_000
"""Bytes of a fast flow whose rate is measured."""

WINDOWS = 2 * 16 * 2**20
"""Bytes that a process may keep for each of two stalled flows, one in each direction."""


@pytest.fixture
def rates(ends, bulk):
    """Bytes a second that a fast flow makes now, up and down."""

    def measure():
        found = []
        for sender, receiver in (ends.pair(), reversed(ends.pair())):
            with sender, receiver:
                began = time.monotonic()
                sent = bulk.send(sender, SAMPLE)
                assert bulk.receive(receiver).result() == sent.result()
                found.append(SAMPLE / (time.monotonic() - began))
        return found

    return measure


@pytest.mark.timeout(240)
def test_two_stalled_readers_slow_nobody_down_and_lose_nothing(rig, ends, bulk, rates, usage_of):
    processes = rig.tunnel.client, rig.tunnel.exit
    before = [rates() for _ in range(3)]
    memory_before = [usage_of(process).memory for process in processes]

    stalled = []
    for sender, receiver in (ends.pair(), reversed(ends.pair())):
        digest = hashlib.sha256()
        sent = bulk.send(sender, LARGE)
        bulk.receive(receiver, LARGE // 2, digest).result()  # its window is as large as it gets by now
        stalled.append((sent, receiver, digest))
    during, memory = [], []
    began = time.monotonic()
    while time.monotonic() - began < STALL:
        during.append(rates())
        memory.append([usage_of(process).memory for process in processes])

    for sent, receiver, digest in stalled:
        assert not sent.done(), "the sender has felt nothing of the stall"
        assert bulk.receive(receiver, digest=digest).result() == sent.result()
    after = [rates() for _ in range(3)]

    for way in (0, 1):
        usual = min(statistics.median(rate[way] for rate in quiet) for quiet in (before, after))
        beside = statistics.median(rate[way] for rate in during)
        assert beside >= SHARE * usual, (
            f"{('up', 'down')[way]}: {usual:.3g} usually, {beside:.3g} during the stall"
        )
    for number in range(len(processes)):
        assert max(taken[number] for taken in memory) - memory_before[number] < 2 * WINDOWS
