"""The state machine of the daemon: the current state, and a numbered history for whoever listens."""

from __future__ import annotations

import time
from typing import Final

from halftunnel_vpn.control.daemon_routes import Event
from halftunnel_vpn.control.ring import Ring
from halftunnel_vpn.daemon.events import TunnelEvent
from halftunnel_vpn.daemon.states import START, STATES, State
from halftunnel_vpn.errors import HalfTunnelError, IllegalTransition

MAX_EVENTS: Final = 256
"""Events kept for those who come back for more."""


def sentence_of(error: HalfTunnelError) -> str:
    """What an error says, on one line: events and the status have no room for a list of problems."""
    first, *more = str(error).splitlines()
    return " ".join(filter(None, (first, "; ".join(line.strip() for line in more))))


class Machine:
    """Goes from state to state by :meth:`on`, as the states' files say, and in no other way."""

    def __init__(self) -> None:
        self.state: State = START
        self.since = time.time()
        self.sentence: str | None = None
        """The last failure, in one sentence; None when there was none since the last success."""
        self._events: Ring[Event] = Ring(MAX_EVENTS)

    def on(self, happening: TunnelEvent, sentence: str | None = None) -> bool:
        """Take the transition; whether the state is another one now. ``sentence`` says what went wrong.

        Raises IllegalTransition, and changes nothing, for what the state does not list.
        """
        target = self.state.leads_to.get(happening)
        if target is None:
            raise IllegalTransition(f"{self.state.name} does not expect {happening.value}")
        moved = target != self.state.name
        if moved:
            self.state = STATES[target]
            self.since = time.time()
        if sentence is not None:
            self.sentence = sentence
        elif target in ("connected", "disconnected"):
            self.sentence = None
        if moved or sentence is not None:
            self.tell(sentence)
        return moved

    def note(self, sentence: str) -> None:
        """Something is wrong, and the state is what it was."""
        self.sentence = sentence
        self.tell(sentence)

    def expects(self, happening: TunnelEvent) -> bool:
        """Whether the state lists it."""
        return happening in self.state.leads_to

    def tell(self, sentence: str | None) -> None:
        """Add to the history: this state, and what there is to say."""
        serial = self._events.last_serial + 1
        self._events.append(Event(serial=serial, time=time.time(), state=self.state.name, sentence=sentence))

    async def events(self, since: int, wait: float) -> list[Event]:
        """Events after ``since``, oldest first; waits up to ``wait`` seconds for a first one."""
        return [event for _, event in await self._events.read(since, wait)]
