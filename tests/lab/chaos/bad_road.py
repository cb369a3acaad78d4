"""A road that loses, delays and reorders: `python -m lab.chaos.bad_road ONE OTHER DEVICE ...`.

As the benchmark's relay, but worse. SIGUSR1 halves its rate, both ways, for those who are in mid-transfer.
"""

from __future__ import annotations

import argparse
import random
import signal
import time
from collections import deque
from typing import Final

from lab.bench.relay import Pipe, open_tap, relay

HELD: Final = 0.004
"""Seconds for which a frame is held back so that later ones overtake it."""


class BadPipe(Pipe):
    """One direction of such a road. ``loss`` and ``late`` are parts of the frames, at random."""

    __slots__ = ("_held", "_late", "_loss", "_rng", "_size", "lost", "overtaken")

    def __init__(
        self, *, delay: float, rate: float, queue: int, loss: float, late: float, rng: random.Random
    ) -> None:
        super().__init__(delay=delay, rate=rate, queue=queue)
        self._size = queue
        self._loss = loss
        self._late = late
        self._rng = rng
        self._held: deque[tuple[float, bytes]] = deque()
        self.lost = self.overtaken = 0

    def take(self, frame: bytes, now: float) -> None:
        """Let a frame in, lose it, or hold it back for a moment."""
        self._let_go(now)
        chance = self._rng.random()
        if chance < self._loss:
            self.lost += 1
        elif chance < self._loss + self._late:
            self.overtaken += 1
            self._held.append((now + HELD, frame))
        else:
            super().take(frame, now)

    def next_arrival(self) -> float | None:
        """When there is something to do next."""
        self._let_go(time.monotonic())
        arrival = super().next_arrival()
        if self._held and (arrival is None or self._held[0][0] < arrival):
            return self._held[0][0]
        return arrival

    def halve_rate(self) -> None:
        """From now on half as fast; the queue keeps its size in bytes."""
        self._bits_per_second /= 2
        self._queue_seconds = self._size * 8 / self._bits_per_second

    def _let_go(self, now: float) -> None:
        while self._held and self._held[0][0] <= now:
            super().take(self._held.popleft()[1], now)


def main() -> None:
    """Read the command line and relay until ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("one", help="a namespace")
    parser.add_argument("other", help="another")
    parser.add_argument("device", help="the name of both TAP devices")
    parser.add_argument("--delay", type=float, required=True, help="seconds, one way")
    parser.add_argument("--rate", type=float, required=True, help="bits a second")
    parser.add_argument("--queue", type=int, required=True, help="bytes")
    parser.add_argument("--loss", type=float, default=0.0, help="part of the frames that are lost")
    parser.add_argument("--late", type=float, default=0.0, help="part of the frames that others overtake")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    pipes = [
        BadPipe(
            delay=options.delay,
            rate=options.rate,
            queue=options.queue,
            loss=options.loss,
            late=options.late,
            rng=rng,
        )
        for _ in range(2)
    ]

    def halve(*_: object) -> None:
        for pipe in pipes:
            pipe.halve_rate()

    signal.signal(signal.SIGUSR1, halve)
    one = open_tap(options.one, options.device)
    other = open_tap(options.other, options.device)
    relay(one, other, pipes[0], pipes[1])


if __name__ == "__main__":
    main()
