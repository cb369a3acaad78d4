"""The state machine of the tunnel: the current state, and a numbered history of events."""

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
"""Events that are kept for readers."""


def sentence_of(error: HalfTunnelError) -> str:
    """Return the message of an error on one line, as needed for events and the status."""
    first, *more = str(error).splitlines()
    return " ".join(filter(None, (first, "; ".join(line.strip() for line in more))))


class Machine:
    """Changes the state by :meth:`go` only, as the states' tables allow."""

    def __init__(self) -> None:
        self.state: State = Disconnected()
        self.since = time.time()
        self.sentence: str | None = None
        """The last failure, in one sentence; None if there was none since the last success."""
        self._events: Ring[Event] = Ring(MAX_EVENTS)
        self._moved = asyncio.Event()

    def go(self, step: Step) -> None:
        """Take the step. Raises IllegalTransition, and changes nothing, if the table does not list it."""
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
            self.report(step.sentence)
        if moved:
            woken, self._moved = self._moved, asyncio.Event()
            woken.set()

    def note(self, sentence: str) -> None:
        """Record a failure that does not change the state."""
        self.sentence = sentence
        self.report(sentence)

    def report(self, sentence: str | None) -> None:
        """Add an event with the present state and ``sentence`` to the history."""
        serial = self._events.last_serial + 1
        self._events.append(Event(serial=serial, time=time.time(), state=self.state.name, sentence=sentence))

    async def events(self, since: int, wait: float) -> list[Event]:
        """Return events after ``since``, oldest first; wait up to ``wait`` seconds for one."""
        return [event for _, event in await self._events.read(since, wait)]

    async def until(self, *names: TunnelState) -> None:
        """Wait until the state is one of ``names``."""
        while self.state.name not in names:
            await self._moved.wait()

    async def while_in(self, name: TunnelState) -> None:
        """Wait until the state is not ``name``."""
        while self.state.name is name:
            await self._moved.wait()
