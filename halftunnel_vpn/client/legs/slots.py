"""One connection of the profile: its possible URLs, its leg, and when it needs another one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from halftunnel_vpn.client.backoff import Backoff
from halftunnel_vpn.client.legs.circuit_breaker import Breaker
from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.session.legs import SessionLeg

T = TypeVar("T")

RESTLESS = 1.0
"""Seconds of life below which a lost leg that worked is not reopened at once."""

RESTLESS_PAUSE = 0.25
"""The longest pause in seconds of such a leg: something cuts legs repeatedly, but they do carry data."""

ROTATION_JITTER = 0.25
"""The largest share of its age by which a leg is replaced earlier, so that legs do not move together."""

BYTES_POLL = 10.0
"""The poll interval in seconds for how much a leg has carried."""


class Slot:
    """The leg of one connection. ``urls`` are in order of priority; ``random`` returns numbers in [0, 1)."""

    def __init__(
        self,
        direction: Direction,
        urls: Sequence[str],
        breakers: Mapping[str, Breaker],
        random: Callable[[], float],
        *,
        rotate_after: float,
        rotate_bytes: int,
        is_urgent: bool = False,
    ) -> None:
        self.direction = direction
        self.urls = list(urls)
        # Whether its leg is for what is urgent; such a slot is closed when nothing is lost any more.
        self.is_urgent = is_urgent
        self.is_closed = False
        self.leg: SessionLeg | None = None
        self._breakers = breakers
        self._random = random
        self._rotate_after = rotate_after
        self._rotate_bytes = rotate_bytes
        self._rotate_at = 0.0
        self.must_move = False
        """Whether the leg must be replaced because of a request."""
        self._not_before = 0.0
        self._asked_at = 0.0
        self._backoff = Backoff(random)
        self._was_refused = False
        self._stirred = asyncio.Event()
        self._attempt: asyncio.Future[Any] | None = None

    def may_lead_to(self, url: str) -> bool:
        """Return whether ``url`` is one of this connection's and the slot has no leg."""
        return self.leg is None and not self.is_urgent and url in self.urls

    def wake(self) -> None:
        """Check again what to do: something has changed."""
        self._stirred.set()

    def close(self) -> None:
        """Open no leg from now on."""
        self.is_closed = True
        self.wake()

    def move(self) -> None:
        """Request a new leg at once, whatever the state of the present one."""
        self.must_move = self.leg is not None
        self._not_before = 0.0
        if self._attempt is not None:
            self._attempt.cancel()  # it began on a network that may be gone
        self.wake()

    def renew(self, now: float) -> None:
        """Replace the leg as if it were old."""
        self._rotate_at = min(self._rotate_at, now)
        self.wake()

    def filled(self, leg: SessionLeg, now: float) -> None:
        """Note that ``leg`` serves this connection from now on."""
        self.leg = leg
        self.must_move = self._was_refused = False
        self._rotate_at = now + self._rotate_after * (1 - ROTATION_JITTER * self._random())

    def lost(self, leg: SessionLeg, now: float) -> None:
        """Note that ``leg`` is lost. Ignore a leg that was replaced before."""
        if leg is not self.leg:
            return
        self.leg = None
        self.must_move = False
        if not leg.records_received:
            self._not_before = now + self._backoff.next_delay()  # it joined but never carried data
        else:
            self._backoff.reset()
            if now - leg.opened_at < RESTLESS:
                self._not_before = now + RESTLESS_PAUSE * self._random()
        self.wake()

    def refused(self, now: float) -> None:
        """Note that the exit refuses a leg: try once more soon, then less and less often."""
        again, self._was_refused = self._was_refused, True
        pause = self._backoff.next_delay() if again else RESTLESS_PAUSE * self._random()
        self._not_before = now + pause

    def wanted(self, now: float) -> str | None:
        """Return the URL to which a leg should be opened now; None if there is nothing to do."""
        self._asked_at = now
        if now < self._not_before:
            return None
        urls = self.urls
        if self.leg is not None and not self._is_due(now):
            urls = self._better_than(self.leg.name)
        return next((url for url in urls if self._breakers[url].is_ready(now)), None)

    async def try_to(self, attempt: Coroutine[Any, Any, T | None]) -> T | None:
        """Return the result of ``attempt``; None if :meth:`move` has cancelled it."""
        self._attempt = task = asyncio.ensure_future(attempt)
        try:
            return await task
        except asyncio.CancelledError:
            me = asyncio.current_task()
            if me is None or me.cancelling() or not task.cancelled():
                raise
            return None
        finally:
            self._attempt = None

    async def rest(self) -> None:
        """Wait until :meth:`wanted` may return something else than at its last call.

        Both use the same reading of the clock. Otherwise a deadline between two readings would be missed.
        """
        now = self._asked_at
        times = [breaker.ready_at for breaker in map(self._breakers.get, self.urls) if breaker is not None]
        if self._not_before > now:
            times.append(self._not_before)
        if self.leg is not None:
            times += [self._rotate_at, now + BYTES_POLL]
        ahead = [time - now for time in times if time > now]
        self._stirred.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(ahead, default=BYTES_POLL)):
                await self._stirred.wait()

    def _is_due(self, now: float) -> bool:
        leg = self.leg
        assert leg is not None
        carried = leg.bytes_sent + leg.bytes_received
        return self.must_move or now >= self._rotate_at or carried >= self._rotate_bytes

    def _better_than(self, url: str) -> list[str]:
        return self.urls[: self.urls.index(url)] if url in self.urls else self.urls
