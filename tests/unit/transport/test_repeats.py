"""When so much is sent again, for so long, that what is urgent gets a leg of its own."""

from __future__ import annotations

import random

import pytest

from halftunnel_vpn.transport.kernel.loss import RepeatCount
from halftunnel_vpn.transport.kernel.notsent_bound import POLL_INTERVAL

SEGMENT = 12_000  # bits


class Path:
    """Polls of a leg that sends ``mbit`` Mbit/s, of which a part is sent again."""

    def __init__(self, mbit: float) -> None:
        self.count = RepeatCount()
        self.now = 100.0
        self._sent, self._repeated = 0.0, 0
        self._per_poll = mbit * 1e6 * POLL_INTERVAL / SEGMENT
        self._random = random.Random(7)

    def run(self, seconds: float, part: float) -> float:
        """Return after how many seconds it is too much; infinity if it never is."""
        began = self.now
        while self.now - began < seconds:
            self.now += POLL_INTERVAL
            before = int(self._sent)
            self._sent += self._per_poll
            self._repeated += sum(self._random.random() < part for _ in range(int(self._sent) - before))
            if self.count.check(self._repeated, int(self._sent), self.now):
                return self.now - began
        return float("inf")


@pytest.mark.parametrize(("mbit", "within"), [(2, 15.0), (10, 3.0), (40, 2.5), (200, 2.0)])
def test_a_path_that_loses_half_a_percent_is_known_soon(mbit, within):
    assert Path(mbit).run(30.0, 0.005) < within


def test_it_is_known_again_as_long_as_it_loses():
    path = Path(40)
    for _ in range(5):
        assert path.run(5.0, 0.005) < 2.5
    assert path.run(60.0, 0.0) == float("inf")


@pytest.mark.parametrize("mbit", [2, 40])
def test_a_path_that_hardly_loses_is_none(mbit):
    assert Path(mbit).run(120.0, 0.0005) == float("inf")


def test_a_queue_that_a_start_has_filled_is_none():
    path = Path(40)
    assert path.run(1.0, 0.3) == float("inf")
    assert path.run(60.0, 0.0) == float("inf")
