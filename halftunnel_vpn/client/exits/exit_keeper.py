"""Replaces the exit in use: when it is lost, when a preferred one is back, and on command.

The new session is made before the old one ends. The device, the routes and the rules of the kill switch stay
as they are, since the rules allow the ports of all exits from the start. Flows cannot move to another exit,
because their targets see another address: they end with RST or ICMP.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol, TypeVar

from halftunnel_vpn.client.backoff import Backoff
from halftunnel_vpn.client.exits.exit_ranking import ExitChoice
from halftunnel_vpn.client.exits.exit_set import ExitSet, Reached, give_up, sentence_of
from halftunnel_vpn.client.exits.switch_back import SwitchBack
from halftunnel_vpn.config.exits import FailoverConfig
from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import HandshakeError, HostError, RoadError
from halftunnel_vpn.protocol.shaping_terms import ShapingTerms

ATTEMPT: Final = 5.0
"""Seconds for a session with one exit."""

RESUME_CHANCE: Final = 1.0
"""Seconds that the exit in use gets to come back before another one, when the network was away."""

PROVEN: Final = 10.0
"""Seconds for which an exit must keep its legs until the pauses between failovers are short again."""

T = TypeVar("T")

log = logging.getLogger(__name__)


class ReplaceableConnection(Protocol):
    """The connection as its keeper uses it (``client/connection.py``)."""

    @property
    def has_session(self) -> bool:
        """Whether there is a session, with or without legs."""
        ...

    @property
    def lost_since(self) -> float | None:
        """Since when a direction has had no leg; None if both have one."""
        ...

    def wish(self) -> ShapingTerms | None:
        """Return the shaping that the next handshake requests."""
        ...

    def continue_with(self, reached: Reached) -> bool:
        """Replace the session by this one at once; return False without a session."""
        ...

    def hurry(self) -> None:
        """Without a session, begin the next attempt now."""
        ...


class ExitKeeper:
    """:meth:`run` it beside the connection. ``random`` returns numbers in [0, 1), ``clock`` seconds."""

    def __init__(
        self,
        exits: ExitSet,
        connection: ReplaceableConnection,
        config: FailoverConfig,
        counters: Counters,
        *,
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._exits = exits
        self._connection = connection
        self._config = config
        self._counters = counters
        self._clock = clock
        self._backoff = Backoff(random)
        self._switch_back = SwitchBack(config.switch_back_after)
        self._woken = asyncio.Event()
        # What a command wants, and where its outcome goes.
        self._command: tuple[ExitChoice, asyncio.Future[str]] | None = None
        # The earliest times of the next attempt at another exit, and of the next probe.
        self._not_before = 0.0
        self._probe_at = 0.0
        # Since when the exit in use has had its legs, with short losses; None until it has them.
        self._served_since: float | None = None
        # Whether a whole round of the others has failed since the exit in use was lost.
        self._round_failed = False

    def changed(self) -> None:
        """Check again: a leg has joined or is lost."""
        self._woken.set()

    def network_changed(self) -> None:
        """Give the exit in use its whole patience again: its legs are being replaced."""
        self._not_before = self._clock() + self._config.patience
        self._woken.set()

    def choose(self, choice: ExitChoice) -> asyncio.Future[str]:
        """Use what ``choice`` says. The result is the name of the exit in use; HostError if that fails."""
        if self._command is not None and not self._command[1].done():
            self._command[1].set_exception(HostError("another exit was chosen in the meantime"))
        outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        outcome.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may await it
        self._command = choice, outcome
        self._woken.set()
        return outcome

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            while True:
                await self._step()
                await self._sleep(self._seconds_to_next_step())
                self._woken.clear()
        finally:
            if self._command is not None and not self._command[1].done():
                self._command[1].set_exception(HostError("the tunnel has ended"))

    async def _sleep(self, seconds: float | None) -> None:
        """Wait until something has changed, at most ``seconds``; None: without a limit."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()

    def _seconds_to_next_step(self) -> float | None:
        now = self._clock()
        lost = self._connection.lost_since
        if self._command is not None:
            return 0.0
        if not self._connection.has_session:
            return None
        if lost is not None:
            if not self._exits.ranking.others():
                return None
            return max(0.0, max(lost + self._config.patience, self._not_before) - now)
        if self._preferred():
            return max(0.0, self._probe_at - now)
        return None

    def _preferred(self) -> list[str]:
        return self._exits.ranking.preferred() if self._config.switch_back else []

    async def _step(self) -> None:
        """Do the one thing that is due."""
        if self._command is not None:
            await self._obey()
        elif not self._connection.has_session:
            return  # the connection tries all exits by itself
        elif self._connection.lost_since is not None:
            if self._seconds_to_next_step() == 0.0:
                await self._fail_over()
        else:
            self._round_failed = False
            if self._served_since is None:
                self._served_since = self._clock()
            if self._preferred() and self._clock() >= self._probe_at:
                await self._probe_preferred()

    # --- an exit that is lost --------------------------------------------------------------------

    async def _fail_over(self) -> None:
        ranking = self._exits.ranking
        lost, lost_since = ranking.in_use, self._connection.lost_since
        served_since = self._served_since
        if served_since is not None and lost_since is not None and lost_since - served_since >= PROVEN:
            self._backoff.reset()
        for name in ranking.others():
            reached = await self._unless_commanded(self._reach(name))
            if self._command is not None or self._connection.lost_since is None:
                if reached is not None:
                    reached.discard()
                return
            if reached is None:
                continue
            if self._round_failed and await self._comes_back():
                reached.discard()
                return
            if lost is not None:
                self._switch_back.lost(lost, self._clock())
                ranking.failed(lost, "the connection to it was lost")
            if self._replace(reached):
                self._counters.count("exit-failovers")
                # Exits that lose their legs at once would otherwise take turns without a pause.
                self._not_before = max(self._not_before, self._clock() + self._backoff.next_delay())
                log.warning("the exit %s is lost: %s is used", lost, name)
            return
        self._round_failed = True
        self._not_before = self._clock() + self._backoff.next_delay()

    async def _comes_back(self) -> bool:
        """Wait for the exit in use; its flows would go on. Return whether it is back."""
        self._connection.hurry()
        deadline = self._clock() + RESUME_CHANCE
        while self._connection.lost_since is not None and self._clock() < deadline:
            self._woken.clear()
            await self._sleep(max(0.0, deadline - self._clock()))
        return self._connection.lost_since is None

    # --- a preferred exit that is back -----------------------------------------------------------

    async def _probe_preferred(self) -> None:
        for name in self._preferred():
            if await self._unless_commanded(self._exits.answers(name)):
                self._switch_back.answered(name, self._clock())
            else:
                self._switch_back.failed(name)
            if self._command is not None:
                return
        self._probe_at = self._clock() + self._switch_back.interval
        back = self._switch_back.due(self._preferred(), self._clock())
        if back is None:
            return
        reached = await self._unless_commanded(self._reach(back))
        if reached is None:
            self._switch_back.failed(back)
        elif self._replace(reached):
            self._switch_back.switched(back, self._clock())
            self._counters.count("exit-switch-backs")
            log.info("the exit %s is back: it is used again", back)

    # --- a command -------------------------------------------------------------------------------

    async def _obey(self) -> None:
        assert self._command is not None
        (choice, outcome), self._command = self._command, None
        ranking = self._exits.ranking
        before, ranking.choice = ranking.choice, choice
        try:
            if choice.fastest:
                await self._exits.measure()
            failure = await self._go_to_best()
        except BaseException:
            if not outcome.done():
                outcome.set_exception(HostError("the tunnel has ended"))
            raise
        if failure is not None:
            ranking.choice = before
            log.warning("%s", failure)
        if outcome.done():
            return
        if failure is None:
            outcome.set_result(ranking.in_use or ranking.wanted()[0])
        else:
            outcome.set_exception(HostError(failure))

    async def _go_to_best(self) -> str | None:
        """Use the best exit that can be reached; return a sentence if another one than the wanted stays."""
        ranking, connection = self._exits.ranking, self._connection
        problem = None
        for name in ranking.wanted():
            if name == ranking.in_use and connection.has_session:
                return None
            if not connection.has_session:
                connection.hurry()  # it tries the exits that may be used, in their order
                return None
            reached = await self._reach(name)
            if reached is not None:
                if self._replace(reached):
                    self._counters.count("exit-switches")
                    log.info("the exit %s is used", name)
                return None
            problem = f"the exit {name} cannot be reached: {ranking.known[name].problem}"
        return f"{problem}; {ranking.in_use} stays in use"

    # --- sessions --------------------------------------------------------------------------------

    async def _reach(self, name: str) -> Reached | None:
        try:
            return await self._exits.session_with(name, self._connection.wish(), limit=ATTEMPT)
        except (RoadError, HandshakeError) as error:
            self._counters.drop(f"exit-{error.reason}")
            log.info("the exit %s cannot be reached: %s", name, sentence_of(error))
            return None

    def _replace(self, reached: Reached) -> bool:
        if self._connection.continue_with(reached):
            self._served_since = None
            self._not_before = self._clock() + self._config.patience  # it takes a moment until it is in use
            return True
        reached.discard()
        return False

    async def _unless_commanded(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Return the result of ``work``; None if a command comes first, and then ``work`` is given up."""
        task = asyncio.ensure_future(work)
        is_taken = False
        try:
            while not task.done() and self._command is None:
                self._woken.clear()
                woken = asyncio.ensure_future(self._woken.wait())
                try:
                    await asyncio.wait((task, woken), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    woken.cancel()
            is_taken = task.done()
            return task.result() if is_taken else None
        finally:
            if not is_taken:
                await give_up(task)
