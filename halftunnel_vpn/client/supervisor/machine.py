"""The state machine of the tunnel: the current state, and a numbered history for whoever listens."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from halftunnel_vpn.client.supervisor.base_state import State, Step
from halftunnel_vpn.client.supervisor.states import Disconnected
from halftunnel_vpn.control.daemon_routes import Event
from halftunnel_vpn.control.ring import Ring
from halftunnel_vpn.control.status_schema import TunnelState
from halftunnel_vpn.errors import HalfTunnelError

MAX_EVENTS: Final = 256
"""Events kept for those who come back for more."""


def sentence_of(error: HalfTunnelError) -> str:
    """What an error says, on one line: events and the status have no room for a list of problems."""
    first, *more = str(error).splitlines()
    return " ".join(filter(None, (first, "; ".join(line.strip() for line in more))))


class Machine:
    """Goes from state to state by :meth:`go`, as the states' tables say, and in no other way."""

    def __init__(self) -> None:
        self.state: State = Disconnected()
        self.since = time.time()
        self.sentence: str | None = None
        """The last failure, in one sentence; None when there was none since the last success."""
        self._events: Ring[Event] = Ring(MAX_EVENTS)
        self._moved = asyncio.Event()

    def go(self, step: Step) -> None:
        """Take the step. Raises IllegalTransition, and changes nothing, when the table does not list it."""
        self.state.check(step)
        moved = step.state.name is not self.state.name
        self.state = step.state
        if moved:
            self.since = time.time()
        if step.sentence is not None:
            self.sentence = step.sentence
        elif step.state.name in (TunnelState.CONNECTED, TunnelState.DISCONNECTED):
            self.sentence = None
        if moved or step.sentence is not None:
            self.tell(step.sentence)
        if moved:
            woken, self._moved = self._moved, asyncio.Event()
            woken.set()

    def note(self, sentence: str) -> None:
        """Something is wrong, and the state is what it was."""
        self.sentence = sentence
        self.tell(sentence)

    def tell(self, sentence: str | None) -> None:
        """Add to the history: this state, and what there is to say."""
        serial = self._events.last_serial + 1
        self._events.append(Event(serial=serial, time=time.time(), state=self.state.name, sentence=sentence))

    async def events(self, since: int, wait: float) -> list[Event]:
        """Events after ``since``, oldest first; waits up to ``wait`` seconds for a first one."""
        return [event for _, event in await self._events.read(since, wait)]

    async def until(self, *names: TunnelState) -> None:
        """Wait until the state is one of ``names``."""
        while self.state.name not in names:
            await self._moved.wait()

    async def while_in(self, name: TunnelState) -> None:
        """Wait until the state is not ``name``."""
        while self.state.name is name:
            await self._moved.wait()
