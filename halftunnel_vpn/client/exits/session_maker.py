"""Makes a session after another was lost: attempts with pauses, until one of the exits answers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from typing import Final

from halftunnel_vpn.client.backoff import Backoff
from halftunnel_vpn.client.exits.exit_set import ExitSet, Reached, give_up
from halftunnel_vpn.client.legs.handshake_sentences import explain
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import HandshakeError, RoadError
from halftunnel_vpn.protocol.shaping_terms import ShapingTerms

SHORT: Final = 10.0
"""Seconds before which a session has ended too soon. After two of these in a row there is a pause, and then
the other exits are tried first."""

log = logging.getLogger(__name__)


class SessionMaker:
    """Attempts until a session is made. ``wish`` returns the shaping that the next handshake requests."""

    def __init__(self, exits: ExitSet, counters: Counters, wish: Callable[[], ShapingTerms | None]) -> None:
        self.refusals: list[str] = []
        """Why the exit gives no session now: one sentence, or none."""
        self._exits = exits
        self._counters = counters
        self._wish = wish
        self._hurried = asyncio.Event()
        # The pauses between sessions that end too soon, and how many have done so in a row.
        self._short_backoff = Backoff(random.random)
        self._short = 0

    def hurry(self) -> None:
        """Begin again now with short pauses: the network has changed, or another exit is wanted."""
        hurried, self._hurried = self._hurried, asyncio.Event()
        hurried.set()

    async def once(self) -> Reached:
        """Try each exit once. Raises RoadError or HandshakeError."""
        return await self._exits.any_session(self._wish(), is_own_last=self._short > 1)

    async def until_made(self, lasted: float) -> Reached:
        """Return the next session. ``lasted`` is how many seconds the last one did."""
        if lasted >= SHORT:
            self._short = 0
            self._short_backoff.reset()
        else:
            self._short += 1
            if self._short > 1:
                self._counters.count("sessions-too-short")
                log.warning("the exit ends each session after a moment; the next attempt comes after a pause")
                await self._rest(self._short_backoff.next_delay())
        backoff = Backoff(random.random)
        while True:
            attempt = asyncio.ensure_future(self.once())
            hurried = asyncio.ensure_future(self._hurried.wait())
            is_taken = False
            try:
                await asyncio.wait((attempt, hurried), return_when=asyncio.FIRST_COMPLETED)
                is_taken = attempt.done()
                if is_taken:
                    return attempt.result()
            except HandshakeError as error:
                self._counters.drop(error.reason)
                self.refusals = [explain(error)]
                log.warning("%s", self.refusals[0])
            except RoadError as error:
                self._counters.drop(f"connect-{error.reason}")
                log.warning("%s", error)
            finally:
                hurried.cancel()
                if not is_taken:
                    await give_up(attempt)
            if hurried.done() and not hurried.cancelled():
                backoff.reset()  # the network has changed, so begin again with short pauses
                continue
            await self._rest(backoff.next_delay())

    async def _rest(self, seconds: float) -> None:
        """Wait until something has changed, at most ``seconds``."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurried.wait()
