"""A circuit breaker for each domain: one that fails is left alone for a while, then tried by one leg only."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final

from halftunnel_vpn.client.backoff import Backoff
from halftunnel_vpn.errors import IllegalTransition


class Circuit(enum.Enum):
    """Whether a domain is dialled."""

    CLOSED = "closed"
    """It works, as far as one knows."""
    OPEN = "open"
    """It has failed: nobody tries until the pause is over."""
    HALF_OPEN = "half-open"
    """One leg is trying it."""


class CircuitEvent(enum.Enum):
    """What befalls a domain."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TRIED = "tried"
    """The pause is over and a leg tries."""
    ABANDONED = "abandoned"
    """The attempt was given up for a reason that says nothing of the domain."""


_TRANSITIONS: Final = {
    (Circuit.CLOSED, CircuitEvent.SUCCEEDED): Circuit.CLOSED,
    (Circuit.CLOSED, CircuitEvent.FAILED): Circuit.OPEN,
    (Circuit.CLOSED, CircuitEvent.TRIED): Circuit.CLOSED,
    (Circuit.CLOSED, CircuitEvent.ABANDONED): Circuit.CLOSED,
    (Circuit.OPEN, CircuitEvent.SUCCEEDED): Circuit.CLOSED,  # an attempt that had begun before
    (Circuit.OPEN, CircuitEvent.FAILED): Circuit.OPEN,
    (Circuit.OPEN, CircuitEvent.TRIED): Circuit.HALF_OPEN,
    (Circuit.OPEN, CircuitEvent.ABANDONED): Circuit.OPEN,
    (Circuit.HALF_OPEN, CircuitEvent.SUCCEEDED): Circuit.CLOSED,
    (Circuit.HALF_OPEN, CircuitEvent.FAILED): Circuit.OPEN,
    (Circuit.HALF_OPEN, CircuitEvent.ABANDONED): Circuit.OPEN,
}


class Breaker:
    """The circuit of one domain. Pauses are those of :class:`Backoff`; times are monotonic seconds."""

    __slots__ = ("_backoff", "_changed", "circuit", "ready_at")

    def __init__(self, random: Callable[[], float], changed: Callable[[], None] = lambda: None) -> None:
        self._backoff = Backoff(random)
        self._changed = changed
        self.circuit = Circuit.CLOSED
        self.ready_at = 0.0
        """When the next attempt may begin; means nothing while one is under way."""

    def is_ready(self, now: float) -> bool:
        """Whether an attempt may begin."""
        return self.circuit is Circuit.CLOSED or (self.circuit is Circuit.OPEN and now >= self.ready_at)

    def tried(self) -> None:
        """An attempt begins. Raises IllegalTransition while the only one that is allowed is under way."""
        self._enter(CircuitEvent.TRIED)

    def succeeded(self) -> None:
        """A leg has joined."""
        self._backoff.reset()
        self._enter(CircuitEvent.SUCCEEDED)

    def failed(self, now: float) -> None:
        """A leg could not be opened."""
        if self.circuit is not Circuit.OPEN:  # else one of several that had begun together
            self.ready_at = now + self._backoff.next_delay()
        self._enter(CircuitEvent.FAILED)

    def abandoned(self, now: float) -> None:
        """An attempt has ended without a result."""
        if self.circuit is Circuit.HALF_OPEN:
            self.ready_at = now
        self._enter(CircuitEvent.ABANDONED)

    def forgive(self) -> None:
        """What is known means nothing any more: the network has changed."""
        self._backoff.reset()
        self.ready_at = 0.0
        if self.circuit is Circuit.OPEN:
            self._changed()

    def _enter(self, event: CircuitEvent) -> None:
        target = _TRANSITIONS.get((self.circuit, event))
        if target is None:
            raise IllegalTransition(f"a circuit that is {self.circuit.value} cannot be {event.value}")
        if target is not self.circuit:
            self.circuit = target
            self._changed()
