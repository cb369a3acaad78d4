"""A second dial beside one that hangs: the first that joins wins (compare RFC 8305, "Happy Eyeballs").

A path that loses one connection usually carries the next one, so a second connection costs less than waiting
for a time-out. An attempt dials, waits for its turn, and then joins. Only one attempt has the turn. It is
cancelled before another one gets the turn, so two legs of one race never join.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from halftunnel_vpn.errors import RoadError

ROUND_TRIPS = 3
"""Round trips that one step of a dial may take before another dial begins,"""

SHORTEST_PATIENCE = 1.0
"""seconds that it may take in any case,"""

LONGEST_PATIENCE = 3.0
"""and seconds after which another dial begins, however long the known round trip is."""

MAX_UNDER_WAY = 2
"""Simultaneous attempts of one race."""

MAX_ATTEMPTS = 5
"""All attempts of one race. The patience doubles each time, so the last begins after 15 s or more."""

T = TypeVar("T")


def patience_for(round_trip: float) -> float:
    """Return the seconds without progress after which another dial begins."""
    return min(max(ROUND_TRIPS * round_trip, SHORTEST_PATIENCE), LONGEST_PATIENCE)


class Attempt(Generic[T]):
    """One dial of a race, as used by the coroutine that makes it."""

    def __init__(self, race: Race[T], begin: Callable[[Attempt[T]], Awaitable[T]], now: float) -> None:
        self._race = race
        self.moved_at = now
        """The time of the last step, in seconds of the loop's clock."""
        self.task = asyncio.ensure_future(begin(self))

    def advanced(self) -> None:
        """Note that the dial has made a step: name resolved, connected, TLS done, upgraded."""
        self.moved_at = self._race.clock()

    async def turn(self) -> None:
        """Wait until no other attempt may join. One that keeps the turn for too long is cancelled."""
        self.advanced()
        await self._race.take_turn(self)
        self.advanced()


class Race(Generic[T]):
    """Runs ``begin`` once, and again beside it whenever the newest attempt makes no step for ``patience``.

    ``begin`` must call :meth:`Attempt.turn` before it sends anything to the exit, and must close its
    connection when it is cancelled. The oldest attempt is never replaced, so a slow path gets its full
    time-out.
    """

    def __init__(self, begin: Callable[[Attempt[T]], Awaitable[T]], patience: float) -> None:
        self.clock = asyncio.get_running_loop().time
        self.started = 0
        """How many attempts were begun."""
        self._begin = begin
        self._patience = patience
        self._attempts: list[Attempt[T]] = []
        self._speaker: Attempt[T] | None = None

    async def run(self) -> T:
        """Return the result of the first attempt that succeeds. All others have ended by then.

        Raises the error of the oldest attempt when all have failed, or when the oldest has timed out.
        """
        failure: Exception | None = None
        self._start()
        oldest = self._attempts[0]
        try:
            while self._attempts:
                await self._wait()
                for attempt in [attempt for attempt in self._attempts if attempt.task.done()]:
                    self._attempts.remove(attempt)
                    if attempt.task.cancelled():
                        continue  # another attempt has taken its turn
                    error = attempt.task.exception()
                    if error is None:
                        return attempt.task.result()
                    if not isinstance(error, Exception):
                        raise error
                    if failure is None or attempt is oldest:
                        failure = error
                    if attempt is oldest and _is_timeout(error):
                        raise error
            assert failure is not None, "an attempt is cancelled only when another one goes on"
            raise failure
        finally:
            await self._cancel_all()

    async def take_turn(self, attempt: Attempt[T]) -> None:
        """Implement :meth:`Attempt.turn`."""
        while (speaker := self._speaker) is not None and speaker is not attempt:
            if speaker.task.done():
                if not speaker.task.cancelled() and speaker.task.exception() is None:
                    # Another attempt has won: this one is cancelled.
                    await asyncio.get_running_loop().create_future()
                break
            left = speaker.moved_at + self._patience - self.clock()
            if left <= 0:
                speaker.task.cancel()
            await asyncio.wait((speaker.task,), timeout=left if left > 0 else None)
        self._speaker = attempt

    def _start(self) -> None:
        self.started += 1
        self._attempts.append(Attempt(self, self._begin, self.clock()))

    async def _wait(self) -> None:
        """Wait until an attempt has ended. Begin another one if that takes too long."""
        running = [attempt.task for attempt in self._attempts]
        if self.started >= MAX_ATTEMPTS:
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            return
        newest = self._attempts[-1]
        patience = self._patience * 2 ** (self.started - 1)
        left = newest.moved_at + patience - self.clock()
        if left > 0:
            await asyncio.wait(running, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            return
        if len(running) >= MAX_UNDER_WAY:
            newest.task.cancel()
            await asyncio.wait((newest.task,))
            if not newest.task.cancelled():
                return  # it has ended just now
            self._attempts.remove(newest)
        self._start()

    async def _cancel_all(self) -> None:
        tasks = [attempt.task for attempt in self._attempts]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _is_timeout(error: Exception) -> bool:
    return isinstance(error, RoadError) and error.reason.endswith("-timeout")
