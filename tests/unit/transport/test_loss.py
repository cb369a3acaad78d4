"""Which losses a queue of the leg itself explains, and after how many others a path loses."""

from __future__ import annotations

import random

import pytest

from halftunnel_vpn.transport.kernel.loss import GRACE, WINDOW, LossCount
from halftunnel_vpn.transport.kernel.notsent_bound import POLL_INTERVAL

LEAST = 0.05
SEGMENT = 12_000  # bits


class Path:
    """Looks at a leg that sends ``mbit`` Mbit/s, of which a part is lost."""

    def __init__(self, mbit: float) -> None:
        self.count = LossCount()
        self.now = 100.0
        self._sent, self._repeated = 0.0, 0
        self._per_poll = mbit * 1e6 * POLL_INTERVAL / SEGMENT
        self._random = random.Random(7)

    def run(self, seconds: float, part: float = 0.0, queue: float = 0.0, burst: int = 0) -> float:
        """Return after how many seconds the path loses; infinity if it does not."""
        began = self.now
        while self.now - began < seconds:
            self.now += POLL_INTERVAL
            before = int(self._sent)
            self._sent += self._per_poll
            lost = sum(self._random.random() < part for _ in range(int(self._sent) - before))
            self._repeated += lost + burst
            burst = 0
            if self.count.check(self._repeated, int(self._sent), LEAST + queue, LEAST, self.now):
                return self.now - began
        return float("inf")


@pytest.mark.parametrize(("mbit", "within"), [(2, 6.0), (10, 2.0), (40, 0.7), (200, 0.4)])
@pytest.mark.parametrize("is_paced", [False, True])
def test_a_path_that_loses_one_percent_is_known_soon(mbit, within, is_paced):
    path = Path(mbit)
    if is_paced:
        path.count.paced(True, path.now - 2 * GRACE)
    assert path.run(30.0, 0.01) < within


@pytest.mark.parametrize("mbit", [2, 40])
def test_a_path_that_hardly_loses_keeps_its_pace(mbit):
    assert Path(mbit).run(120.0, 0.0005) == float("inf")


def test_losses_of_a_full_queue_are_explained():
    path = Path(40)
    assert path.run(20.0, 0.03, queue=0.02) == float("inf")
    path.count.paced(True, path.now)
    assert path.run(GRACE / 2, 0.03, queue=0.01) == float("inf"), "TCP had filled it"
    assert path.run(20.0, 0.03, queue=0.03) == float("inf"), "both directions keep a little, this is more"
    assert path.run(20.0, 0.01, queue=0.012) < 1.0


def test_what_an_overflow_lost_is_sent_again_without_a_queue():
    path = Path(40)
    path.run(0.1, 0.3, queue=0.02)
    assert path.run(0.2, 0.3) == float("inf"), "of the overflow"
    assert path.run(5.0, 0.01) < 1.0


def test_a_single_burst_is_no_path_that_loses():
    path = Path(40)
    for _ in range(10):
        assert path.run(WINDOW * SEGMENT / 40e6 * 1.1, burst=60) == float("inf")


def test_the_count_begins_again_without_a_pace_of_its_own():
    path = Path(40)
    path.count.paced(True, path.now - 2 * GRACE)
    path.count.paced(False, path.now)
    assert path.run(20.0, 0.02, queue=0.012) == float("inf")
