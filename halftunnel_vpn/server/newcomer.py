"""A leg that has not identified itself yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from halftunnel_vpn.errors import PeerError
from halftunnel_vpn.protocol.keys import Direction
from halftunnel_vpn.protocol.wire import Buffer
from halftunnel_vpn.timers import Timer
from halftunnel_vpn.transport.leg import Leg
from halftunnel_vpn.transport.leg_phase import PEER_FAULTS, LegPhase


class NewcomerOwner(Protocol):
    """Decides about newcomers. The gate implements it."""

    def first_message(self, newcomer: Newcomer, message: Buffer) -> None:
        """Handle the first message of a leg. Raises PeerError when it is not acceptable."""

    def refuse(self, newcomer: Newcomer, reason: str) -> None:
        """Close the leg of ``newcomer``; count and log ``reason``."""

    def forget(self, newcomer: Newcomer) -> None:
        """Discard ``newcomer``, whose leg is gone."""


class Newcomer:
    """Listens to a leg until it has identified itself; implements LegListener."""

    __slots__ = (
        "_again",
        "_owner",
        "deadline",
        "direction",
        "has_spoken",
        "held",
        "joined",
        "leg",
        "since",
        "token",
    )

    def __init__(
        self,
        owner: NewcomerOwner,
        direction: Direction,
        leg: Leg,
        joined: Callable[[], None],
        make_timer: Callable[[Callable[[float], None]], Timer],
        since: float,
    ) -> None:
        # When the leg was opened.
        self.since = since
        self._owner = owner
        self.direction = direction
        self.leg = leg
        self.joined = joined
        self.token: bytes | None = None
        self.has_spoken = False
        self.deadline = make_timer(lambda now: owner.refuse(self, "handshake-timeout"))
        self.held = make_timer(self._go_on)
        self._again: Callable[[], None] = lambda: None

    @property
    def is_open(self) -> bool:
        """Whether the leg is not being closed. An exit that stops also closes newcomers cleanly."""
        return self.leg.state is LegPhase.OPEN

    def hold(self, again: Callable[[], None], until: float) -> None:
        """Call ``again`` at ``until``, unless the leg is closed before."""
        self._again = again
        self.held.arm(until)

    def _go_on(self, now: float) -> None:
        if self.is_open:
            self._attempt(self._again)

    def _attempt(self, step: Callable[[], None]) -> None:
        try:
            step()
        except PeerError as error:
            self._owner.refuse(self, error.reason)

    def leg_opened(self, leg: Leg) -> None:
        """Do nothing: the deadline counts from the accepted connection, not from the HTTP upgrade."""

    def record_received(self, leg: Leg, record: Buffer) -> None:
        """Pass the first message to the owner. Refuse a second one."""
        if not self.is_open:
            return  # the exit stops
        if self.has_spoken:
            self._owner.refuse(self, "message-before-session")
            return
        self.has_spoken = True
        self._attempt(lambda: self._owner.first_message(self, record))

    def leg_writable(self, leg: Leg) -> None:
        """Do nothing: no data waits for the leg."""

    def leg_closed(self, leg: Leg, reason: str) -> None:
        """Discard the newcomer: its leg was closed before it joined."""
        if reason in PEER_FAULTS:
            self._owner.refuse(self, reason)
        else:
            self._owner.forget(self)
