"""The exits of a profile with what dials each of them, and the attempts to make a session with one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from halftunnel_vpn.client.exits.exit_probe import Options, Probe, probe, probe_all
from halftunnel_vpn.client.exits.exit_ranking import BY_PRIORITY, ExitChoice, ExitRanking
from halftunnel_vpn.client.legs.connector import Connector
from halftunnel_vpn.client.legs.handshake_clock import HandshakeClock, TimestampMemory
from halftunnel_vpn.client.legs.handshake_sentences import explain
from halftunnel_vpn.client.legs.new_session import NewSession
from halftunnel_vpn.config.client import ClientProfile, views
from halftunnel_vpn.config.exits import ExitEntry
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import HalfTunnelError, HandshakeError, RoadError
from halftunnel_vpn.protocol.keys import KeyPair
from halftunnel_vpn.protocol.shaping_terms import ShapingTerms
from halftunnel_vpn.protocol.trace_ports import NO_TRACING, Tracing

FIRST_ATTEMPT: Final = 5.0
"""Seconds for a session with one exit, if there are others to try. Each vain round doubles it."""

MAX_ATTEMPT: Final = 40.0
"""Seconds for it at most."""

log = logging.getLogger(__name__)


class Reached(NamedTuple):
    """A session that was made with the exit ``name``, and the connector for its further legs."""

    name: str
    connector: Connector
    established: NewSession

    def discard(self) -> None:
        """End a session that nothing will use."""
        self.established.discard()


async def give_up(attempt: asyncio.Future[Any]) -> None:
    """End an attempt whose result nobody takes. A session that it has made in the meantime is closed."""
    attempt.cancel()
    await asyncio.wait((attempt,))
    if not attempt.cancelled() and attempt.exception() is None and isinstance(attempt.result(), Reached):
        attempt.result().discard()


class ExitSet:
    """One connector for each exit. ``ranking`` decides which exits may be used, and in which order."""

    def __init__(
        self,
        connectors: Mapping[str, Connector],
        entries: tuple[ExitEntry, ...],
        options_of: Options,
        choice: ExitChoice = BY_PRIORITY,
    ) -> None:
        self.ranking = ExitRanking(list(connectors), choice)
        self._connectors = connectors
        self._entries = entries
        self._options_of = options_of
        self._limit = FIRST_ATTEMPT
        self._probing: asyncio.Future[dict[str, Probe]] | None = None

    @classmethod
    def of(
        cls,
        profile: ClientProfile,
        options_of: Options,
        counters: Counters,
        *,
        state_dir: Path | None,
        choice: ExitChoice = BY_PRIORITY,
        tracing: Tracing = NO_TRACING,
    ) -> ExitSet:
        """Return the exits of ``profile``. The times of handshakes are kept in ``state_dir``, if given."""
        connectors = {}
        for entry, view in zip(profile.exits, views(profile), strict=True):
            memory = None
            if state_dir is not None:
                keys = KeyPair(view.client.private_key)
                memory = TimestampMemory(state_dir, keys.public, view.exit.public_key)
            connectors[entry.name] = Connector(
                view, options_of, counters, HandshakeClock(memory), tracing=tracing
            )
        return cls(connectors, profile.exits, options_of, choice)

    @classmethod
    def single(cls, connector: Connector) -> ExitSet:
        """Return the set of the one exit to which ``connector`` leads."""
        return cls({"exit": connector}, (), connector.dial_options)

    @property
    def current(self) -> Connector:
        """The connector of the exit in use; before the first session, of the one that is tried first."""
        return self._connectors[self.ranking.in_use or self.ranking.wanted()[0]]

    async def any_session(self, wish: ShapingTerms | None, *, is_own_last: bool = False) -> Reached:
        """Make a session with the first exit that can be reached, each tried once.

        ``is_own_last``: the exit of the last session is tried last.
        Raises HandshakeError or RoadError with the sentence of every exit.
        """
        if self.ranking.choice.fastest and self.ranking.in_use is None:
            await self.measure()
        failures: dict[str, HalfTunnelError] = {}
        names = self.ranking.for_new_session(is_own_last=is_own_last)
        for name in names:
            try:
                return await self.session_with(name, wish, limit=self._limit if len(names) > 1 else None)
            except (RoadError, HandshakeError) as error:
                failures[name] = error
        self._limit = min(2 * self._limit, MAX_ATTEMPT)
        if len(failures) == 1:
            raise next(iter(failures.values()))
        sentences = "; ".join(f"{name}: {sentence_of(error)}" for name, error in failures.items())
        reasons = [error.reason for error in failures.values() if isinstance(error, RoadError)]
        raise RoadError(f"no exit can be reached: {sentences}", reason=reasons[0] if reasons else "no-exit")

    async def session_with(self, name: str, wish: ShapingTerms | None, *, limit: float | None) -> Reached:
        """Make a session with one exit within ``limit`` seconds. Raises HandshakeError or RoadError."""
        connector = self._connectors[name]
        connector.shaping_wish = wish
        try:
            async with asyncio.timeout(limit):
                established = await connector.new_session()
        except TimeoutError:
            error = RoadError(f"the exit did not answer within {limit:.0f} s", reason="exit-timeout")
            self.ranking.failed(name, str(error))
            raise error from None
        except (RoadError, HandshakeError) as error:
            self.ranking.failed(name, sentence_of(error))
            raise
        self.ranking.answered(name)
        self._limit = FIRST_ATTEMPT
        return Reached(name, connector, established)

    async def measure(self) -> None:
        """Measure the round trip of every exit. A second caller in the meantime waits for the same result."""
        if self._probing is None:
            self._probing = asyncio.ensure_future(probe_all(self._entries, self._options_of))
            self._probing.add_done_callback(self._probed)
        found = await asyncio.shield(self._probing)
        for name, result in found.items():
            self._note(name, result)

    async def answers(self, name: str) -> bool:
        """Probe one exit; return whether it has answered on both paths."""
        (entry,) = (entry for entry in self._entries if entry.name == name)
        result = await probe(entry, self._options_of)
        self._note(name, result)
        return result.problem is None

    def close(self) -> None:
        """End a measurement that runs."""
        if self._probing is not None:
            self._probing.cancel()

    def _probed(self, probing: asyncio.Future[dict[str, Probe]]) -> None:
        self._probing = None

    def _note(self, name: str, result: Probe) -> None:
        if result.problem is None:
            self.ranking.answered(name, result.round_trip)
        else:
            self.ranking.failed(name, result.problem)


def sentence_of(error: HalfTunnelError) -> str:
    """Return why an exit was not reached."""
    return explain(error) if isinstance(error, HandshakeError) else str(error)
