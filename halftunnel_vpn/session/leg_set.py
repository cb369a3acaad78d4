"""The legs of one session: which carry new trains, what happens when one is lost or retired.

A leg that is retired carries nothing new. What it has carried is acknowledged first; then it is closed by the
end that sends on it, behind its last record, so nothing has to be sent again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from halftunnel_vpn.errors import PeerError
from halftunnel_vpn.session.context import SessionContext
from halftunnel_vpn.session.keepalive import LegKeepalive
from halftunnel_vpn.session.legs import Legs, SessionLeg
from halftunnel_vpn.session.lossy_paths import LOSSY_FOR, LossyPaths
from halftunnel_vpn.session.stream import Stream
from halftunnel_vpn.timers import Timer, Wheel

DRAIN_POLL: Final = 0.05
"""Seconds between checks whether a retired leg has been acknowledged."""

DRAIN_TIMEOUT: Final = 30.0
"""Seconds after which a retired leg is closed although something that it carried is not acknowledged."""

LEG_RETIRED: Final = "leg-retired"
"""Reason for closing a leg that has been replaced and owes nothing."""

LEG_NOT_DRAINED: Final = "leg-not-drained"
"""Reason for closing a replaced leg that still owes something; that goes out again on another."""


class LegSet:
    """Joins, retires and loses the ``legs`` of a session, whose ``streams`` they carry."""

    __slots__ = (
        "_context",
        "_draining",
        "_keepalive",
        "_legs",
        "_lossy_paths",
        "_receipt_interval",
        "_sends",
        "_streams",
        "_timer",
    )

    def __init__(
        self,
        context: SessionContext,
        legs: Legs,
        streams: Mapping[int, Stream],
        keepalive: LegKeepalive,
        wheel: Wheel,
        receipt_interval: float,
    ) -> None:
        self._context = context
        # Seconds between two receipts of the peer's, where they ride on a clock; otherwise 0.
        self._receipt_interval = receipt_interval
        self._legs = legs
        self._streams = streams
        self._keepalive = keepalive
        self._sends = context.sends
        self._lossy_paths = LossyPaths()
        self._draining: dict[SessionLeg, float] = {}
        self._timer: Timer = wheel.timer(self._poll)

    @property
    def owes_nothing(self) -> bool:
        """Whether the peer has acknowledged all that any stream of the session was given to send."""
        return all(stream.sending.finished for stream in self._streams.values())

    def add(self, leg: SessionLeg, now: float) -> None:
        """Add ``leg``, which has joined."""
        self._legs.all.append(leg)
        if leg.direction is self._sends:
            # not zero: it would have to carry everything until it has caught up with the others
            leg.handicap = leg.weight * max((other.load for other in self._legs.senders), default=0.0)
            self._legs.add_sender(leg)
            leg.under_way.interval = self._receipt_interval
            if until := self._lossy_paths.until(leg.path, now):
                self._give_up_pace(leg, until)
        elif self._context.is_client:
            leg.proves_by_hearing = (
                True  # only the client can replace a leg, so it must detect by itself that one is dead
            )
        self._keepalive.watch(leg, now)

    def remove(self, leg: SessionLeg, now: float) -> bool:
        """Remove ``leg`` and queue again what it carried; return False if it was not in the set."""
        if leg not in self._legs.all:
            return False
        self._legs.all.remove(leg)
        self._keepalive.forget(leg)
        self._draining.pop(leg, None)
        self._context.acknowledgements.riding.pop(leg, None)
        self._legs.discard_sender(leg)
        if leg.direction is self._sends:
            # Also a drained one: nothing acknowledges acknowledgements and credit, and its path may be dead.
            for stream in self._streams.values():
                if stream.sending.leg_lost(leg) and stream.queue is None:
                    self._context.scheduler.activate(stream)
                stream.owe_acknowledgement()  # the acknowledgements that the leg carried may be lost as well
            for other in self._legs.all:
                if other.gives_receipts:  # the last one may be lost, and the peer waits for it
                    self._context.acknowledgements.receipt(other)
        return True

    def retire(self, leg: SessionLeg, now: float, within: float = DRAIN_TIMEOUT) -> None:
        """Close ``leg``, which was replaced, once it is drained or after ``within`` seconds (client only)."""
        if leg in self._legs.all and not leg.draining:
            self._drain(leg, now + within, now)
            if leg.direction is not self._sends:
                # sent on a leg that is known to work, if there is one: this one may be dead
                others = [other for other in self._legs.of(leg.direction) if not other.draining]
                self._keepalive.retire(leg, others[-1] if others else leg, within, now)
            self._context.wake()

    def asked_to_retire(self, number: int, within: float, now: float) -> None:
        """Drain leg ``number``, on which this end sends: the client has replaced it."""
        for leg in self._legs.senders:
            if leg.number == number:
                self._drain(leg, now + min(within, DRAIN_TIMEOUT), now)
                return

    def receipt_received(self, number: int, records: int, stamp: int, now: float) -> None:
        """Take the receipt of leg ``number``. Raises PeerError for more records than were sent on it."""
        for leg in self._legs.all:
            if leg.number == number and leg.direction is self._sends:
                self.records_arrived(leg, records, now, stamp)

    def records_arrived(self, leg: SessionLeg, records: int, now: float, stamp: int = 0) -> None:
        """Take the receipt of ``leg``. Raises PeerError for more records than were sent on it."""
        if records > leg.records_sent:
            raise PeerError("receipt-never-sent", f"leg {leg.number}")
        leg.under_way.pacer.legs = len(self._legs.shared)
        if leg.under_way.arrived(records, now, stamp):
            self._pace(leg, now)
        if leg.proof_record and records >= leg.proof_record:
            leg.proof_record = 0  # on a clock receipts are frequent, and pings would show what carries data
            leg.owes_proof = False
            leg.proofs += 1
        if self._context.scheduler:
            self._context.wake()

    def _pace(self, leg: SessionLeg, now: float) -> None:
        pacer = leg.under_way.pacer
        leg.port.set_pace(pacer.pace)
        if pacer.wants_drain:
            pacer.wants_drain = False
            for other in self._legs.senders:  # they may share its path, and then all of them fill the queue
                if other is not leg and other.under_way.pacer.drain(now):
                    other.port.set_pace(other.under_way.pacer.pace)

    def loses(self, leg: SessionLeg, now: float) -> None:
        """The path of ``leg`` loses: leave the pace of all its legs to TCP, of later ones as well."""
        self._lossy_paths.add(leg.path, now + LOSSY_FOR)
        for other in self._legs.senders:
            if other.path == leg.path:
                self._give_up_pace(other, now + LOSSY_FOR)
        self._context.wake()

    def _give_up_pace(self, leg: SessionLeg, until: float) -> None:
        had_pace = leg.under_way.pacer.pace > 0
        leg.under_way.give_up_pace(until)
        if had_pace:
            leg.port.set_pace(0.0)

    def doubt_all(self, now: float) -> None:
        """Ping every leg at once; dead ones are found as quickly as under load."""
        for leg in list(self._legs.all):  # a ping may lose a leg
            self._keepalive.doubt(leg, now)

    def close_all(self) -> None:
        """Close every leg: the session is over."""
        for leg in list(self._legs.all):
            self._keepalive.forget(leg)
            leg.port.close("session-closed")
        self._legs.all.clear()
        self._legs.senders.clear()
        self._legs.divide()
        self._draining.clear()
        self._timer.cancel()

    def _drain(self, leg: SessionLeg, deadline: float, now: float) -> None:
        leg.draining = True
        self._legs.discard_sender(leg)
        self._draining[leg] = deadline
        self._timer.arm(now + DRAIN_POLL)

    def _poll(self, now: float) -> None:
        self._timer.arm(now + DRAIN_POLL)
        for leg, deadline in list(self._draining.items()):
            is_drained = leg.direction is self._sends and not leg.outstanding
            if is_drained or now >= deadline:
                self._draining.pop(leg, None)
                leg.port.close(LEG_RETIRED if is_drained else LEG_NOT_DRAINED)
        if not self._draining:
            self._timer.cancel()
