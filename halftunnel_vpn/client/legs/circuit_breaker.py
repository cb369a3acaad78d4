"""A circuit breaker for each domain: after a failure it pauses, then permits one attempt."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final

from halftunnel_vpn.client.backoff import Backoff
from halftunnel_vpn.errors import IllegalTransition


class Circuit(enum.Enum):
    """Whether a domain may be dialled."""

    CLOSED = "closed"
    """The domain works, as far as known."""
    OPEN = "open"
    """The domain has failed. No attempt is permitted until the pause is over."""
    HALF_OPEN = "half-open"
    """One attempt is running."""


class CircuitEvent(enum.Enum):
    """An event of a domain."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TRIED = "tried"
    """The pause is over and an attempt begins."""
    ABANDONED = "abandoned"
    """The attempt was cancelled for a reason that says nothing about the domain."""


_TRANSITIONS: Final = {
    (Circuit.CLOSED, CircuitEvent.SUCCEEDED): Circuit.CLOSED,
    (Circuit.CLOSED, CircuitEvent.FAILED): Circuit.OPEN,
    (Circuit.CLOSED, CircuitEvent.TRIED): Circuit.CLOSED,
    (Circuit.CLOSED, CircuitEvent.ABANDONED): Circuit.CLOSED,
    (Circuit.OPEN, CircuitEvent.SUCCEEDED): Circuit.CLOSED,  # an attempt that had begun before the failure
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
        """The time of the next attempt; meaningless while one is running."""

    def is_ready(self, now: float) -> bool:
        """Return whether an attempt may begin."""
        return self.circuit is Circuit.CLOSED or (self.circuit is Circuit.OPEN and now >= self.ready_at)

    def tried(self) -> None:
        """Begin an attempt. Raises IllegalTransition while the only permitted one is running."""
        self._enter(CircuitEvent.TRIED)

    def succeeded(self) -> None:
        """Note that a leg has joined."""
        self._backoff.reset()
        self._enter(CircuitEvent.SUCCEEDED)

    def failed(self, now: float) -> None:
        """Note that a leg could not be opened."""
        if self.circuit is not Circuit.OPEN:  # otherwise one of several attempts that began together
            self.ready_at = now + self._backoff.next_delay()
        self._enter(CircuitEvent.FAILED)

    def abandoned(self, now: float) -> None:
        """Note that an attempt has ended without a result."""
        if self.circuit is Circuit.HALF_OPEN:
            self.ready_at = now
        self._enter(CircuitEvent.ABANDONED)

    def forgive(self) -> None:
        """Close the circuit: the network has changed, so earlier failures no longer count."""
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
