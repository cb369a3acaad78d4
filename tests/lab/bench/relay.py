"""A long road between two namespaces: `python -m lab.bench.relay ONE OTHER DEVICE...`.

Makes a TAP device in each namespace and carries Ethernet frames between them, with a delay and a rate,
since this kernel may lack netem. The devices vanish when it ends.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import select
import struct
import time
from collections import deque
from typing import Final

from lab import namespaces

FRAME_LIMIT: Final = 65536
"""Bytes to read at once; frames are as large as the device's MTU."""

BATCH: Final = 64
"""Frames taken from one device before the other is looked at."""

_TUNSETIFF: Final = 0x400454CA
_IFF_TAP: Final = 0x0002
_IFF_NO_PI: Final = 0x1000


class Pipe:
    """One direction: a queue at the narrow place, and then the way. Times are monotonic seconds."""

    __slots__ = ("_bits_per_second", "_delay", "_free_at", "_queue_seconds", "dropped", "on_the_way")

    def __init__(self, *, delay: float, rate: float, queue: int) -> None:
        """``delay`` seconds one way, ``rate`` bits a second (0: any), ``queue`` bytes that may wait."""
        self._delay = delay
        self._bits_per_second = rate
        self._queue_seconds = queue * 8 / rate if rate else 0.0
        self._free_at = 0.0
        self.on_the_way: deque[tuple[float, bytes]] = deque()
        self.dropped = 0

    def take(self, frame: bytes, now: float) -> None:
        """Let a frame in, or drop it when the queue is full."""
        starts = max(self._free_at, now)
        if self._bits_per_second:
            if starts - now > self._queue_seconds:
                self.dropped += 1
                return
            self._free_at = starts = starts + len(frame) * 8 / self._bits_per_second
        self.on_the_way.append((starts + self._delay, frame))

    def next_arrival(self) -> float | None:
        """When the next frame arrives."""
        return self.on_the_way[0][0] if self.on_the_way else None


def open_tap(namespace: str, name: str) -> int:
    """Make a TAP device in a namespace; its descriptor, non-blocking. Raises OSError."""
    with namespaces.inside(namespace):
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        request = struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI)
        fcntl.ioctl(descriptor, _TUNSETIFF, request)
    return descriptor


def relay(one: int, other: int, there: Pipe, back: Pipe) -> None:
    """Carry frames between two descriptors forever."""
    ways = ((one, other, there), (other, one, back))
    monotonic, read = time.monotonic, os.read
    while True:
        arrivals = [at for _, _, pipe in ways if (at := pipe.next_arrival()) is not None]
        # select, not epoll: its timeout has microseconds.
        wait = max(0.0, min(arrivals) - monotonic()) if arrivals else None
        readable, _, _ = select.select((one, other), (), (), wait)
        for source, sink, pipe in ways:
            if source in readable:
                try:
                    for _ in range(BATCH):
                        pipe.take(read(source, FRAME_LIMIT), monotonic())
                except BlockingIOError:
                    pass
            _deliver(pipe, sink, monotonic())


def _deliver(pipe: Pipe, sink: int, now: float) -> None:
    waiting = pipe.on_the_way
    while waiting and waiting[0][0] <= now:
        try:
            os.write(sink, waiting.popleft()[1])
        except OSError:
            pipe.dropped += 1  # the device is down or full


def main() -> None:
    """Read the command line and relay until ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("one", help="a namespace")
    parser.add_argument("other", help="another")
    parser.add_argument("device", help="the name of both TAP devices")
    parser.add_argument("--delay", type=float, required=True, help="seconds, one way")
    parser.add_argument("--rate", type=float, default=0, help="bits a second")
    parser.add_argument("--queue", type=int, default=1 << 20, help="bytes")
    options = parser.parse_args()
    one = open_tap(options.one, options.device)
    other = open_tap(options.other, options.device)
    pipes = [Pipe(delay=options.delay, rate=options.rate, queue=options.queue) for _ in range(2)]
    relay(one, other, pipes[0], pipes[1])


if __name__ == "__main__":
    main()
