"""Detects dead legs by acknowledgements and pings of our own, never by TCP.

A leg in use is checked every ``TICK``. Progress is any record that arrives on it, and any acknowledgement of
a packet that it carried. If something waits for an answer and there was no progress for a round trip, the leg
is pinged. If there is still none after three round trips and two seconds, it is dead. A leg that owes no
answer is not checked until it is used again.

A slow path is not a dead one: a single record takes eight seconds at 64 kbit/s. So a leg counts as alive as
long as bytes arrive on its connection, or the next hop accepts bytes that were written up to the ping. Bytes
that it accepts later prove nothing, because perhaps only the next hop is alive. The next hop may also have
accepted everything at once, in front of the slow path. Then the other end sees the bytes arrive, and an exit,
which can open no other leg, waits longer for its last one if data is in flight there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from halftunnel_vpn.session.legs import Movement, SessionLeg
from halftunnel_vpn.timers import Timer, Wheel

TICK: Final = 0.1
"""The poll interval in seconds of a leg in use."""

DOUBT_AFTER: Final = 0.4
"""Seconds in addition to a round trip without progress after which a leg is pinged."""

ROUND_TRIPS: Final = 3
"""Round trips without progress after which a leg may be dead,"""

PATIENCE: Final = 2.0
"""and the additional seconds after which it is, less two poll intervals, so that it is found in time."""

LAST_PATIENCE: Final = 10.0
"""Seconds without progress after which the last leg of an exit's direction is dead: a record at 64 kbit/s."""

MOVES_WITHIN: Final = 1.0
"""The last seconds of the waiting time, in which bytes must move to keep the leg alive."""

UNKNOWN_ROUND_TRIP: Final = 1.0
"""Seconds that a round trip counts as until one is measured."""

STALL: Final = 2 * TICK
"""Seconds by which a check may be late. Beyond that the process was suspended; the time does not count."""


def patience_for(leg: SessionLeg) -> float:
    """Return the seconds without progress after which ``leg`` is dead."""
    return ROUND_TRIPS * round_trip_of(leg) + PATIENCE - 2 * TICK


def round_trip_of(leg: SessionLeg) -> float:
    """What the leg's round trip counts as, in seconds: the worse of the last one and the smoothed one."""
    if leg.round_trip is None:
        return UNKNOWN_ROUND_TRIP
    return max(leg.round_trip, leg.last_round_trip)


class Watch:
    """The checks of one leg. ``ask`` pings it, ``dead`` is called when it has not answered in time.

    ``is_last`` is True if no other leg could replace it; then the answer that is missing may be data.
    """

    __slots__ = (
        "_ask",
        "_dead",
        "_given",
        "_is_last",
        "_leg",
        "_looked_at",
        "_moved",
        "_proofs",
        "_quiet_since",
        "_records",
        "_timer",
    )

    def __init__(
        self,
        leg: SessionLeg,
        wheel: Wheel,
        ask: Callable[[SessionLeg, float], None],
        dead: Callable[[SessionLeg, float], None],
        is_last: Callable[[SessionLeg], bool],
    ) -> None:
        self._leg = leg
        self._ask = ask
        self._dead = dead
        self._is_last = is_last
        self._moved: Movement | None = None
        self._given = 0
        self._timer: Timer = wheel.timer(self._poll)
        self._quiet_since = self._looked_at = 0.0
        self._records = self._proofs = 0

    def begin(self, now: float) -> None:
        """Begin to check the leg, which has just been used."""
        leg = self._leg
        leg.is_watched = True
        self._progress(now)
        self._rest(now)

    def end(self) -> None:
        """The leg is gone."""
        self._timer.cancel()

    def _progress(self, now: float) -> None:
        leg = self._leg
        self._records, self._proofs = leg.records_received, leg.proofs
        self._quiet_since = now
        self._moved = None

    def _moves(self) -> bool:
        """Return whether bytes have moved since the last call, up to the ping that is in flight."""
        before, self._moved = self._moved, self._leg.port.movement()
        if before is None:
            self._given = self._moved.given
            return False
        if self._moved.received > before.received:
            return True
        return before.taken < self._given and self._moved.taken > before.taken

    def _rest(self, now: float) -> None:
        self._looked_at = now
        self._timer.arm(now + TICK)

    def _poll(self, now: float) -> None:
        leg = self._leg
        late = now - self._looked_at - TICK
        self._rest(now)
        if late > STALL:
            self._quiet_since += late  # this process has not read the socket in the meantime
        if leg.records_received != self._records or leg.proofs != self._proofs:
            self._progress(now)
        quiet = now - self._quiet_since
        if leg.ping_sent:
            patience = patience_for(leg)
            if quiet < patience:
                if self._moved is None and quiet >= patience - MOVES_WITHIN:
                    self._moves()
            elif self._moves():
                self._quiet_since = now - patience + MOVES_WITHIN
            elif quiet >= LAST_PATIENCE or not self._is_last(leg):
                self._timer.cancel()
                self._dead(leg, now)
                return
        elif not (leg.outstanding or leg.owes_proof):
            leg.is_watched = False
            self._timer.cancel()
            return
        if not leg.ping_sent and quiet >= round_trip_of(leg) + DOUBT_AFTER:
            self._ask(leg, now)  # last: when its key has sealed all that it may, the leg is gone by that
